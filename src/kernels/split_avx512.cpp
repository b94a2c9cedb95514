#include "kernels/split_avx512.h"

#if defined(__x86_64__)

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/integer_scale.h"
#include "kernels/kernels.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

namespace {

/// Up to 16 elements from x + i on.
[[gnu::always_inline]] inline __m512 load_some(const float* x, int64_t i, int64_t n) {
  if (n - i >= 16) return _mm512_loadu_ps(x + i);
  const int64_t left = std::max<int64_t>(n - i, 0);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << left) - 1), x + i);
}

/// Bytes of 64 numbers, as the two packing instructions leave them, in order.
[[gnu::always_inline]] inline __m512i in_order(__m512i bytes) {
  const __m512i from = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  return _mm512_permutexvar_epi32(from, bytes);
}

[[gnu::always_inline]] inline __m512i add_pairs(__m512i sum, __m512i numbers) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(numbers, _mm512_set1_epi16(1)));
}

/// Magnitudes as integers: a NaN is larger than all numbers.
float larger(float a, float b) {
  return std::bit_cast<float>(std::max(std::bit_cast<int32_t>(a), std::bit_cast<int32_t>(b)));
}

}  // namespace

float largest_magnitude(const float* x, int64_t n) {
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 16) {
    const __m512i bits = _mm512_castps_si512(load_some(x, i, n));
    most = _mm512_max_epi32(most, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
  }
  return std::bit_cast<float>(_mm512_reduce_max_epi32(most));
}

void split(const float* x, int64_t n, float largest, float scale, std::byte* to) {
  const float step = integer_scale(largest, largest_split);
  if (!(step > 0)) {
    std::memset(to, 0, static_cast<size_t>(split_bytes(n)));
    return set_split_header(to, {scale * step, 0, 0});
  }
  const __m512 inverse = _mm512_set1_ps(static_cast<float>(largest_split) / largest);
  __m512i high_sum = _mm512_setzero_si512();
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < split_padded(n); i += 64) {
    __m512i number[4];
    HWY_UNROLL(4)
    for (int j = 0; j < 4; ++j) {
      const __m512 scaled = _mm512_mul_ps(load_some(x, i + 16 * j, n), inverse);
      number[j] = _mm512_cvtps_epi32(scaled);
    }
    __m512i high[2], low[2];
    HWY_UNROLL(2)
    for (int j = 0; j < 2; ++j) {
      const __m512i q = _mm512_packs_epi32(number[2 * j], number[2 * j + 1]);
      high[j] = _mm512_srai_epi16(_mm512_add_epi16(q, _mm512_set1_epi16(128)), 8);
      low[j] =
          _mm512_and_si512(q, _mm512_set1_epi16(255));  // its lowest byte, read as a signed one
      high_sum = add_pairs(high_sum, high[j]);
      sum = add_pairs(sum, q);
    }
    _mm512_storeu_si512(high_bytes(to) + i, in_order(_mm512_packs_epi16(high[0], high[1])));
    _mm512_storeu_si512(low_bytes(to, n) + i, in_order(_mm512_packus_epi16(low[0], low[1])));
  }
  const int32_t high_total = _mm512_reduce_add_epi32(high_sum);
  set_split_header(to, {scale * step, high_total, _mm512_reduce_add_epi32(sum) - 256 * high_total});
}

void split_weights(const float* const* from, int64_t count, std::byte* const* to) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = larger(largest, largest_magnitude(from[i], key_block));
  }
  for (int64_t i = 0; i < count; ++i) split(from[i], key_block, largest, 1.0f, to[i]);
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
