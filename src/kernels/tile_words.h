// Words of a cache on their way into tiles.
#pragma once

#if defined(__x86_64__)

#include <cmath>
#include <cstring>

#include "core/half.h"
#include "core/kv_words.h"
#include "kernels/tile_products.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

constexpr bool has_tiles(KvDType t) { return t == KvDType::bf16 || is_quantised(t); }

/// Signed bytes of the low nibbles of bytes.
[[gnu::always_inline]] inline __m512i low_nibbles(__m512i bytes) {
  const __m512i sign = _mm512_set1_epi8(8);
  const __m512i nibbles = _mm512_and_si512(bytes, _mm512_set1_epi8(0x0f));
  return _mm512_sub_epi8(_mm512_xor_si512(nibbles, sign), sign);
}

/// Words [depth][columns] of a cache as TileWords: where they lie if that is whole tiles; else a
/// copy, in which int4 is int8.
inline const void* words_in_tiles(KvDType t, const void* words, const WordOrder& order,
                                  int64_t depth, int64_t columns, void* scratch) {
  const int64_t chunk = t == KvDType::bf16 ? 32 : 64;
  const int64_t padded = round_up(columns, tile_words);
  const bool in_rows = order.row == columns;
  if (t != KvDType::int4 && in_rows && depth % chunk == 0 && padded == columns) return words;
  const auto* from = static_cast<const int32_t*>(words);
  auto* to = static_cast<int32_t*>(scratch);
  const int64_t end = ceil_div(depth, chunk) * tile_rows * padded;
  int64_t done = 0;
  for (int64_t k = 0; k < ceil_div(depth, word_elements(t)); ++k) {
    for (int64_t c = 0; c < padded; c += tile_words) {
      const int64_t left = std::min(tile_words, columns - c);
      const auto some = static_cast<__mmask16>(0xffff >> (tile_words - left));
      const __m512i word = _mm512_maskz_loadu_epi32(some, from + order.at(k, c));
      if (t != KvDType::int4) {
        _mm512_storeu_si512(to + done + c, word);
      } else {
        _mm512_storeu_si512(to + done + c, low_nibbles(word));
        _mm512_storeu_si512(to + done + padded + c, low_nibbles(_mm512_srli_epi16(word, 4)));
      }
    }
    done += t == KvDType::int4 ? 2 * padded : padded;
  }
  std::memset(to + done, 0, static_cast<size_t>(end - done) * sizeof(int32_t));
  return scratch;
}

// A weight of 0 takes out a value, unless that is NaN or infinite. So those are left out of
// products and count one by one, in rows that see them.

/// to [rows][16 * tiles] = words of bf16 from `column` on, 0 for what is not finite.
inline void copy_finite(const TileWords& words, int64_t rows, int64_t column, int64_t tiles,
                        int32_t* to) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  const __m512i infinite = _mm512_set1_epi16(0x7f80);
  for (int64_t k = 0; k < rows; ++k) {
    for (int64_t j = 0; j < tiles; ++j, to += tile_words) {
      const std::byte* at = words.data + 4 * (k * words.columns + column + tile_words * j);
      const __m512i word = _mm512_loadu_si512(at);
      const auto finite = _mm512_cmplt_epu16_mask(_mm512_and_si512(word, magnitude), infinite);
      _mm512_storeu_si512(to, _mm512_maskz_mov_epi16(finite, word));
    }
  }
}

/// acc [.][acc_row] += weights of bf16 * values, of rows [row, row + n) and those bf16 values of
/// columns [begin, end) that are not finite and whose key a row sees.
inline void add_not_finite(const WeighedBlock& block, int64_t row, int64_t n,
                           const TileWords& words, int64_t begin, int64_t end, float* acc,
                           int64_t acc_row) {
  for (int64_t s = 0; s < key_block; ++s) {
    for (int64_t c = begin; c < end; ++c) {
      const float value =
          load_packed(KvDType::bf16, words.data, WordOrder::rows(words.columns), s, c);
      if (std::isfinite(value)) continue;
      for (int64_t r = row; r < row + n; ++r) {
        if ((block.visible[r] >> s & 1) == 0) continue;
        const float weight = load_element(block.weights + r * block.weights_row, DType::bf16, s);
        acc[r * acc_row + c] += weight * value;
      }
    }
  }
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
