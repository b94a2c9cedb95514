// How a KV cache packs elements into words, one element at a time. Loops over many belong to the
// kernels, which must agree.
#pragma once

#include <bit>
#include <cstdint>

#include "core/half.h"
#include "gqa/dtype.h"

namespace gqa {

static_assert(std::endian::native == std::endian::little, "words are read as wholes");

/// The largest integer of a quantised type; the smallest is its negative.
constexpr int32_t largest_int(KvDType t) { return t == KvDType::int8 ? 127 : 7; }

// A block of keys or values is a matrix [depth][columns], depth being what products sum over: the
// dimensions of keys, the tokens of values. It is stored as words [ceil(depth / n)][columns], each
// of n elements of one column: what dot-product instructions and matrix tiles take (bf16 in pairs,
// int8 in fours), and what shifts alone decode to vectors of neighbouring columns. Of the 8
// elements of an int4 word the first four are the low nibbles of its bytes, the others the high
// ones: two masks make two words of int8 of them. Elements behind the last one are 0.

/// Elements of a word.
constexpr int64_t word_elements(KvDType t) {
  constexpr int64_t elements[] = {1, 1, 2, 4, 8};
  return elements[static_cast<int>(t)];
}
constexpr int64_t word_bytes(KvDType t) { return t == KvDType::f16 ? 2 : 4; }

/// Bytes of a matrix [depth][columns] in words.
constexpr int64_t words_bytes(KvDType t, int64_t depth, int64_t columns) {
  return (depth + word_elements(t) - 1) / word_elements(t) * columns * word_bytes(t);
}

/// Columns of a panel.
inline constexpr int64_t panel_columns = 16;

/// Where the words of a matrix lie: row after row or, if its columns are whole panels, panel after
/// panel, each of them row after row. Products with few registers take a panel at a time: they then
/// read one line behind the other, which processors follow by themselves.
struct WordOrder {
  int64_t row;    ///< words from one row to the next, of a panel
  int64_t panel;  ///< words from one panel to the next

  static constexpr WordOrder rows(int64_t columns) { return {columns, panel_columns}; }
  static constexpr WordOrder panels(KvDType t, int64_t depth, int64_t columns) {
    if (columns % panel_columns != 0) return rows(columns);
    return {panel_columns, (depth + word_elements(t) - 1) / word_elements(t) * panel_columns};
  }
  /// The word of a column in a row of words.
  constexpr int64_t at(int64_t word_row, int64_t column) const {
    return word_row * row + column / panel_columns * panel + column % panel_columns;
  }
};

/// Element (k, column) of a matrix; of a quantised type the integer, without its scale.
inline float load_packed(KvDType t, const void* words, const WordOrder& order, int64_t k,
                         int64_t column) {
  const int64_t n = word_elements(t);
  const int64_t word = order.at(k / n, column);
  if (!is_quantised(t)) return load_element(words, element_dtype(t), word * n + k % n);
  const int8_t byte = static_cast<const int8_t*>(words)[4 * word + k % 4];
  if (t == KvDType::int8) return byte;
  return static_cast<float>(k % n < 4 ? static_cast<int8_t>(byte << 4) >> 4 : byte >> 4);
}

}  // namespace gqa
