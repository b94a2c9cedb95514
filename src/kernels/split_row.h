// Rows of numbers as two pieces of 8 bits, for products of integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/checked.h"

namespace gqa::kernels {

/// x ~ scale * (256 high + low), high and low signed bytes. What is not finite makes the scale NaN
/// and all pieces 0.
struct SplitHeader {
  float scale;
  int32_t high_sum;  ///< of the high pieces of all elements
  int32_t low_sum;   ///< of the low ones
};

/// The largest magnitude of 256 high + low, high being 127 or less.
inline constexpr int32_t largest_split = 127 * 256 + 127;

// In memory: the header, the high pieces, the low ones; each a whole number of cache lines, zeros
// behind the last element.

inline constexpr int64_t split_line = 64;
constexpr int64_t split_padded(int64_t n) { return round_up(n, split_line); }
constexpr int64_t split_bytes(int64_t n) { return split_line + 2 * split_padded(n); }
constexpr const std::byte* high_bytes(const std::byte* row) { return row + split_line; }
constexpr std::byte* high_bytes(std::byte* row) { return row + split_line; }
constexpr const std::byte* low_bytes(const std::byte* row, int64_t n) {
  return row + split_line + split_padded(n);
}
constexpr std::byte* low_bytes(std::byte* row, int64_t n) {
  return row + split_line + split_padded(n);
}

inline SplitHeader split_header(const std::byte* row) {
  SplitHeader header;
  std::memcpy(&header, row, sizeof header);
  return header;
}
inline void set_split_header(std::byte* row, const SplitHeader& header) {
  std::memcpy(row, &header, sizeof header);
}

}  // namespace gqa::kernels
