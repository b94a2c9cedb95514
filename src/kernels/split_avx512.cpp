#include "kernels/split_avx512.h"

#if defined(__x86_64__)

#include <algorithm>
#include <bit>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,fma")
namespace gqa::kernels {

namespace {

/// Up to 16 elements from x + i on.
__m512 load_some(const float* x, int64_t i, int64_t n) {
  const int64_t left = std::clamp<int64_t>(n - i, 0, 16);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << left) - 1), x + i);
}

__m512i join(const __m128i (&part)[4]) {
  const __m256i lower = _mm256_inserti128_si256(_mm256_castsi128_si256(part[0]), part[1], 1);
  const __m256i upper = _mm256_inserti128_si256(_mm256_castsi128_si256(part[2]), part[3], 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
}

}  // namespace

void split(const float* x, int64_t n, float scale, std::byte* to) {
  // Magnitudes as integers: a NaN is larger than all numbers.
  __m512i most = _mm512_setzero_si512();
  HWY_UNROLL(4)
  for (int64_t i = 0; i < n; i += 16) {
    const __m512i bits = _mm512_castps_si512(load_some(x, i, n));
    most = _mm512_max_epi32(most, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
  }
  const float largest = std::bit_cast<float>(_mm512_reduce_max_epi32(most));
  const float step = split_scale(largest);
  const float inverse = step > 0 ? static_cast<float>(largest_split) / largest : 0.0f;
  __m512i high_sum = _mm512_setzero_si512();
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < split_padded(n); i += 64) {
    __m128i high[4], low[4];
    HWY_UNROLL(4)
    for (int j = 0; j < 4; ++j) {
      const __m512 scaled = _mm512_mul_ps(load_some(x, i + 16 * j, n), _mm512_set1_ps(inverse));
      const __m512i q = _mm512_cvtps_epi32(scaled);
      const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8);
      high_sum = _mm512_add_epi32(high_sum, upper);
      sum = _mm512_add_epi32(sum, q);
      high[j] = _mm512_cvtepi32_epi8(upper);
      low[j] = _mm512_cvtepi32_epi8(q);  // its lowest byte, read as a signed one
    }
    _mm512_storeu_si512(high_bytes(to) + i, join(high));
    _mm512_storeu_si512(low_bytes(to, n) + i, join(low));
  }
  const int32_t high_total = _mm512_reduce_add_epi32(high_sum);
  set_split_header(to, {scale * step, high_total, _mm512_reduce_add_epi32(sum) - 256 * high_total});
}

}  // namespace gqa::kernels
HWY_POP_ATTRIBUTES

#endif
