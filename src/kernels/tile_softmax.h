// From scores to weights of bf16, for products in tiles.
#pragma once

#if defined(__x86_64__)

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/ahead.h"
#include "kernels/split_avx512.h"
#include "kernels/tiles.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

/// 2^x for x <= 0 or little above; exactly 0 below -126 and for -inf; NaN stays. 2^r by a
/// polynomial of degree 5 on |r| <= 1/2, fitted for the least maximal relative error, 2^-23.6: with
/// its roundings below 2^-22, where rounding to bf16 leaves up to 2^-8. Adding 1.5 * 2^23 + 127
/// rounds to an integer and leaves it, biased as exponents are, in the low bits.
[[gnu::always_inline]] inline __m512 exp2_negative(__m512 x) {
  const __m512 shift = _mm512_set1_ps(12582912.0f + 127.0f);
  const __m512 shifted = _mm512_add_ps(x, shift);
  const __m512 r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, shift));
  __m512 p = _mm512_set1_ps(0.0013276472454890609f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.009675541892647743f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.05550713092088699f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24022120237350464f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6931469440460205f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0000001192092896f));
  const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
  // Not: above or equal, so that NaN stays.
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_mul_ps(normal, p, _mm512_castsi512_ps(power));
}

/// Lanes of vector j of a block whose keys are seen.
[[gnu::always_inline]] inline __mmask16 seen_lanes(uint64_t visible, int64_t j) {
  return static_cast<__mmask16>(visible >> (16 * j));
}

/// The largest score of a row that is seen, -inf if there is none.
[[gnu::always_inline]] inline float largest_seen(const float* scores, const uint64_t* visible,
                                                 int64_t blocks, int64_t rows) {
  const __m512 none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 most[2] = {none, none};
  for (int64_t b = 0; b < blocks; ++b, scores += key_block) {
    const uint64_t seen = visible[b * rows];
    if (seen == ~uint64_t{0}) {
      for (int64_t j = 0; j < 4; ++j) {
        most[j % 2] = _mm512_max_ps(most[j % 2], _mm512_loadu_ps(scores + 16 * j));
      }
    } else if (seen != 0) {
      for (int64_t j = 0; j < 4; ++j) {
        const __mmask16 lanes = seen_lanes(seen, j);
        most[j % 2] = _mm512_mask_max_ps(most[j % 2], lanes, most[j % 2],
                                         _mm512_maskz_loadu_ps(lanes, scores + 16 * j));
      }
    }
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(most[0], most[1]));
}

/// The scores of a row and block become weights, 32 at a time, at the same place; they are added to
/// the sums before they are rounded.
template <class Unit>
[[gnu::always_inline]] inline void weigh(float* scores, uint64_t visible, __m512 factor,
                                         __m512 offset, __m512 (&sums)[2]) {
  auto* to = reinterpret_cast<std::byte*>(scores);
  for (int64_t j = 0; j < 4; j += 2, to += tile_row_bytes) {
    __m512 weight[2];
    for (int64_t i = 0; i < 2; ++i) {
      const __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(scores + 16 * (j + i)), factor, offset);
      weight[i] = _mm512_maskz_mov_ps(seen_lanes(visible, j + i), exp2_negative(x));
      sums[i] = _mm512_add_ps(sums[i], weight[i]);
    }
    Unit::round(weight[0], weight[1], to);
  }
}

/// As Table::softmax().
template <class Unit>
void softmax_to_bf16(float* scores, int64_t scores_row, const uint64_t* visible, int64_t blocks,
                     int64_t rows, float scale, RowState* states, float* acc, int64_t v_stride,
                     const Ahead& next) {
  constexpr float none = -std::numeric_limits<float>::infinity();
  constexpr float log2_e = 1.44269504088896341f;
  AheadLines ahead(next, 2 * rows);
  for (int64_t r = 0; r < rows; ++r) {
    ahead.step();
    const float max = scale * largest_seen(scores + r * scores_row, visible + r, blocks, rows);
    RowState& state = states[r];
    if (!(max > state.max)) continue;
    const float factor = std::exp(state.max - max);
    state.sum *= factor;
    state.max = max;
    float* row = acc + r * v_stride;
    for (int64_t i = 0; i < v_stride; i += 16) {
      _mm512_storeu_ps(row + i, _mm512_mul_ps(_mm512_set1_ps(factor), _mm512_loadu_ps(row + i)));
    }
  }
  const __m512 factor = _mm512_set1_ps(scale * log2_e);
  for (int64_t r = 0; r < rows; ++r) {
    ahead.step();
    RowState& state = states[r];
    // Nothing seen yet: subtracting 0 leaves the scores at -inf and their weights at 0.
    const __m512 offset = _mm512_set1_ps(state.max == none ? 0.0f : state.max * log2_e);
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    float* row = scores + r * scores_row;
    uint64_t any = 0;
    for (int64_t b = 0; b < blocks; ++b, row += key_block) {
      const uint64_t seen = visible[b * rows + r];
      any |= seen;
      if (seen != 0) {
        weigh<Unit>(row, seen, factor, offset, sums);
      } else {
        std::memset(row, 0, key_block * 2);
      }
    }
    if (any != 0) state.sum += _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
  }
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
