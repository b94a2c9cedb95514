// One element at a time between f32 and the 16-bit types. Loops over many belong to the kernels'
// codecs; both round to nearest even and must agree to the bit.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "gqa/dtype.h"

namespace gqa {

inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1fu;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in f32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t biased = exponent == 31 ? 255u : exponent + 112u;
  return std::bit_cast<float>(sign | biased << 23 | mantissa << 13);
}

inline uint16_t f32_to_f16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return sign | 0x7e00u | static_cast<uint16_t>(magnitude >> 13 & 0x3ffu);
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // rounds to 2^16 or is infinite
  if (magnitude < 0x38800000u) {                        // below 2^-14: subnormal, in units of 2^-24
    // Adding 0.5 puts the unit of the sum at 2^-24, so the addition itself rounds to nearest even.
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(rounded) - 0x3f000000u);
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  return sign | static_cast<uint16_t>((magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

inline float bf16_to_f32(uint16_t h) {
  return std::bit_cast<float>(static_cast<uint32_t>(h) << 16);
}

inline uint16_t f32_to_bf16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/// Element `i` of an array of type `t`. The array may be unaligned.
inline float load_element(const void* data, DType t, int64_t i) {
  const char* p = static_cast<const char*>(data) + i * dtype_bytes(t);
  if (t == DType::f32) {
    float f;
    std::memcpy(&f, p, sizeof f);
    return f;
  }
  uint16_t h;
  std::memcpy(&h, p, sizeof h);
  return t == DType::f16 ? f16_to_f32(h) : bf16_to_f32(h);
}

inline void store_element(void* data, DType t, int64_t i, float value) {
  char* p = static_cast<char*>(data) + i * dtype_bytes(t);
  if (t == DType::f32) {
    std::memcpy(p, &value, sizeof value);
    return;
  }
  const uint16_t h = t == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
  std::memcpy(p, &h, sizeof h);
}

}  // namespace gqa
