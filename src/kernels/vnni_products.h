// Products of rows in two pieces of 8 bits (split_row.h) and integers of a cache, by VNNI.
#pragma once

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>
#include <span>

#include "core/checked.h"
#include "core/kv_words.h"
#include "kernels/ahead.h"
#include "kernels/split_avx512.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

/// Words of integers of 4 bits or 8. The instruction multiplies unsigned bytes by signed ones, so
/// both are made unsigned: what is added to each integer comes off again with the sum of the row.
template <KvDType t>
struct UnsignedWords;

template <>
struct UnsignedWords<KvDType::int8> {
  static constexpr int32_t kBias = 128;
  static constexpr int kParts = 1;  ///< of 4 elements, in a word
  static __m512i unsigned_bytes(__m512i word) {
    return _mm512_xor_si512(word, _mm512_set1_epi8(static_cast<char>(0x80)));
  }
  template <int kPart>
  static __m512i part(__m512i bytes) {
    return bytes;
  }
};

template <>
struct UnsignedWords<KvDType::int4> {
  static constexpr int32_t kBias = 8;
  static constexpr int kParts = 2;
  static __m512i unsigned_bytes(__m512i word) {
    return _mm512_xor_si512(word, _mm512_set1_epi8(static_cast<char>(0x88)));
  }
  template <int kPart>
  static __m512i part(__m512i bytes) {
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    return _mm512_and_si512(kPart == 0 ? bytes : _mm512_srli_epi16(bytes, 4), nibble);
  }
};

/// Split rows and the words that they meet.
struct SplitPart {
  const std::byte* rows;
  const int32_t* words;  ///< [.][columns]
  int64_t begin, end;    ///< of the words
  AheadSteps ahead;
};

/// C [rows][.] (+)= sum over parts of rows * words [begin, end).
struct SplitProduct {
  std::span<SplitPart> parts;
  int64_t row_bytes;
  int64_t n;  ///< elements of a row
  int64_t columns;
  float* c;
  int64_t c_row;
  bool add;
};

/// Part kPart of a word, V vectors of them, times the same elements of R rows.
template <KvDType t, int kPart, int R, int V>
[[gnu::always_inline]] inline void multiply_elements(const SplitProduct& p, const std::byte* rows,
                                                     int64_t word, const __m512i (&bytes)[V],
                                                     __m512i (&sums)[2][R][V]) {
  if constexpr (kPart < UnsignedWords<t>::kParts) {
    __m512i part[V];
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) part[j] = UnsignedWords<t>::template part<kPart>(bytes[j]);
    const int64_t element = 4 * (word * UnsignedWords<t>::kParts + kPart);
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      const std::byte* row = rows + r * p.row_bytes;
      int32_t high, low;
      std::memcpy(&high, high_bytes(row) + element, sizeof high);
      std::memcpy(&low, low_bytes(row, p.n) + element, sizeof low);
      const __m512i h = _mm512_set1_epi32(high);
      const __m512i l = _mm512_set1_epi32(low);
      HWY_UNROLL(4)
      for (int j = 0; j < V; ++j) {
        add_dots(sums[0][r][j], part[j], h);
        add_dots(sums[1][r][j], part[j], l);
      }
    }
    multiply_elements<t, kPart + 1>(p, rows, word, bytes, sums);
  }
}

/// V vectors of words, whose last one has the columns of the mask, times their elements of R rows.
template <KvDType t, int R, int V>
[[gnu::always_inline]] inline void multiply_split_word(const SplitProduct& p, const std::byte* rows,
                                                       int64_t word, const int32_t* at,
                                                       __mmask16 mask, __m512i (&sums)[2][R][V]) {
  __m512i bytes[V];
  HWY_UNROLL(4)
  for (int j = 0; j < V; ++j) {
    const __mmask16 some = j == V - 1 ? mask : static_cast<__mmask16>(0xffff);
    bytes[j] = UnsignedWords<t>::unsigned_bytes(_mm512_maskz_loadu_epi32(some, at + 16 * j));
  }
  multiply_elements<t, 0>(p, rows, word, bytes, sums);
}

/// All words of a part. A step asks for as much as it reads.
template <KvDType t, int R, int V>
[[gnu::always_inline]] inline void multiply_split_part(const SplitProduct& p, SplitPart& part,
                                                       int64_t row, int64_t column, __mmask16 mask,
                                                       __m512i (&sums)[2][R][V]) {
  constexpr int64_t step_bytes = V * ahead_line;
  const std::byte* rows = part.rows + row * p.row_bytes;
  const int32_t* at = part.words + part.begin * p.columns + column;
  AheadSteps ahead = part.ahead;
  ahead.begin_pass();
  int64_t word = part.begin;
  while (const int64_t n = ahead.steps(step_bytes, part.end - word)) {
    const char* next = ahead.next();
    for (const int64_t until = word + n; word < until; ++word, at += p.columns) {
      AheadSteps::ask(next, step_bytes, ahead.second_level());
      next += step_bytes;
      multiply_split_word<t>(p, rows, word, at, mask, sums);
    }
    ahead.skip(n * step_bytes);
  }
  for (; word < part.end; ++word, at += p.columns) {
    multiply_split_word<t>(p, rows, word, at, mask, sums);
  }
  part.ahead = ahead;
}

/// V vectors of columns of R rows; the mask is of the last one's columns.
template <KvDType t, int R, int V>
[[gnu::always_inline]] inline void split_tile(const SplitProduct& p, int64_t row, int64_t column,
                                              __mmask16 mask) {
  __m512i sums[2][R][V];
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) sums[0][r][j] = sums[1][r][j] = _mm512_setzero_si512();
  }
  for (SplitPart& part : p.parts) multiply_split_part<t>(p, part, row, column, mask, sums);
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    int32_t high_sum = 0, low_sum = 0;
    float scale = 0;  // that of all parts
    for (const SplitPart& part : p.parts) {
      const SplitHeader header = split_header(part.rows + (row + r) * p.row_bytes);
      high_sum += header.high_sum;
      low_sum += header.low_sum;
      scale = header.scale;
    }
    const __m512i high_bias = _mm512_set1_epi32(UnsignedWords<t>::kBias * high_sum);
    const __m512i low_bias = _mm512_set1_epi32(UnsignedWords<t>::kBias * low_sum);
    float* c = p.c + (row + r) * p.c_row + column;
    HWY_UNROLL(4)
    for (int j = 0; j < V; ++j) {
      const __m512 both = combine(_mm512_sub_epi32(sums[0][r][j], high_bias),
                                  _mm512_sub_epi32(sums[1][r][j], low_bias), scale);
      const __m512 sum = p.add ? _mm512_add_ps(_mm512_loadu_ps(c + 16 * j), both) : both;
      _mm512_storeu_ps(c + 16 * j, sum);
    }
  }
}

inline constexpr int64_t split_tile_rows = 4;

template <KvDType t, int V>
void split_tile_of(int64_t n, const SplitProduct& p, int64_t row, int64_t column, __mmask16 mask) {
  switch (n) {
    case 1:
      return split_tile<t, 1, V>(p, row, column, mask);
    case 2:
      return split_tile<t, 2, V>(p, row, column, mask);
    case 3:
      return split_tile<t, 3, V>(p, row, column, mask);
    default:
      return split_tile<t, 4, V>(p, row, column, mask);
  }
}

inline constexpr int64_t split_tile_columns = 32;

/// Columns [begin, end) of `rows` rows.
template <KvDType t>
void multiply_split_rows(const SplitProduct& p, int64_t rows, int64_t begin, int64_t end) {
  constexpr __mmask16 all = 0xffff;
  for (int64_t row = 0; row < rows; row += split_tile_rows) {
    const int64_t n = std::min(split_tile_rows, rows - row);
    int64_t column = begin;
    for (; column + split_tile_columns <= end; column += split_tile_columns) {
      split_tile_of<t, 2>(n, p, row, column, all);
    }
    for (; column < end; column += 16) {
      const int64_t left = std::min<int64_t>(16, p.columns - column);
      split_tile_of<t, 1>(n, p, row, column, static_cast<__mmask16>(0xffff >> (16 - left)));
    }
  }
}

inline void multiply_split(KvDType t, const SplitProduct& p, int64_t rows, int64_t begin,
                           int64_t end) {
  if (t == KvDType::int8) {
    multiply_split_rows<KvDType::int8>(p, rows, begin, end);
  } else {
    multiply_split_rows<KvDType::int4>(p, rows, begin, end);
  }
  for (SplitPart& part : p.parts) part.ahead.finish();
}

/// Passes over the words for so many rows and columns.
inline int64_t split_passes(int64_t rows, int64_t columns) {
  return ceil_div(rows, split_tile_rows) * ceil_div(columns, split_tile_columns);
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
