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

/// Element (k, column) of a matrix whose words have `columns` columns; of a quantised type the
/// integer, without its scale.
inline float load_packed(KvDType t, const void* words, int64_t columns, int64_t k, int64_t column) {
  const int64_t n = word_elements(t);
  const int64_t word = k / n * columns + column;
  if (!is_quantised(t)) return load_element(words, element_dtype(t), word * n + k % n);
  const int8_t byte = static_cast<const int8_t*>(words)[4 * word + k % 4];
  if (t == KvDType::int8) return byte;
  return static_cast<float>(k % n < 4 ? static_cast<int8_t>(byte << 4) >> 4 : byte >> 4);
}

}  // namespace gqa
