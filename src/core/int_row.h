// Rows of small integers, as quantised KV caches hold them, one element at a time. Loops over many
// belong to the kernels, which must agree.
#pragma once

#include <cstdint>

#include "gqa/dtype.h"

namespace gqa {

/// The largest integer of a quantised type; the smallest is its negative.
constexpr int32_t largest_int(KvDType t) { return t == KvDType::int8 ? 127 : 7; }

/// Bytes of a row of n integers. int8: a byte each. int4: two's complement nibbles, two a byte:
/// byte i holds element i (low) and element half + i (high), half being n / 2 rounded up. So a
/// vector of bytes decodes to two vectors of neighbours by shifts alone, without a shuffle.
constexpr int64_t int_row_bytes(KvDType t, int64_t n) {
  return t == KvDType::int8 ? n : (n + 1) / 2;
}

/// Element i of a row of n.
inline int32_t load_int(KvDType t, const void* row, int64_t n, int64_t i) {
  const auto* bytes = static_cast<const int8_t*>(row);
  if (t == KvDType::int8) return bytes[i];
  const int64_t half = int_row_bytes(t, n);
  if (i >= half) return bytes[i - half] >> 4;
  return static_cast<int8_t>(bytes[i] << 4) >> 4;
}

/// The others stay, also the one in the same byte.
inline void store_int(KvDType t, void* row, int64_t n, int64_t i, int32_t value) {
  auto* bytes = static_cast<uint8_t*>(row);
  if (t == KvDType::int8) {
    bytes[i] = static_cast<uint8_t>(value);
    return;
  }
  const int64_t half = int_row_bytes(t, n);
  uint8_t& byte = bytes[i < half ? i : i - half];
  byte = static_cast<uint8_t>(i < half ? (byte & 0xf0) | (value & 0x0f)
                                       : (byte & 0x0f) | (value & 0x0f) << 4);
}

}  // namespace gqa
