// Rows in two pieces of 8 bits (split_row.h), made and put together again by AVX-512.
#pragma once

#include "kernels/split_row.h"

#if defined(__x86_64__)

#include "kernels/avx512.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

/// The largest magnitude of x [n]; NaN if there is one among them.
float largest_magnitude(const float* x, int64_t n);
/// to [split_bytes(n)] = scale * x [n], whose largest magnitude, or one above it, is given.
void split(const float* x, int64_t n, float largest, float scale, std::byte* to);
inline void split(const float* x, int64_t n, float scale, std::byte* to) {
  split(x, n, largest_magnitude(x, n), scale, to);
}
/// Weights of `count` blocks, `from` and `to` of each, in steps of one size, so that their products
/// can be added up before they are scaled.
void split_weights(const float* const* from, int64_t count, std::byte* const* to);

/// scale * (256 high + low), of exact sums of the pieces' products.
[[gnu::always_inline]] inline __m512 combine(__m512i high, __m512i low, float scale) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(256.0f * scale),
                         _mm512_mul_ps(_mm512_cvtepi32_ps(low), _mm512_set1_ps(scale)));
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
