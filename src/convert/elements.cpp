#include "convert/elements.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "core/half.h"

namespace gqa {
namespace {

template <typename Stored, typename Convert>
void decode_as(const std::byte* data, int64_t n, float* out, Convert convert) {
  for (int64_t i = 0; i < n; ++i) {
    Stored stored;
    std::memcpy(&stored, data + i * sizeof(Stored), sizeof stored);
    out[i] = convert(stored);
  }
}

/// Stores convert(values[i]); `exponent` is the mask of a stored element's exponent, all set where
/// it is not finite.
template <typename Stored, typename Value, typename Convert>
std::optional<int64_t> encode_as(const Value* values, int64_t n, std::byte* out, Stored exponent,
                                 Convert convert) {
  unsigned bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Stored stored = convert(values[i]);
    bad |= (stored & exponent) == exponent ? 1u : 0u;
    std::memcpy(out + i * sizeof(Stored), &stored, sizeof stored);
  }
  if (bad == 0) return std::nullopt;
  int64_t first = 0;
  while ((convert(values[first]) & exponent) != exponent) ++first;
  return first;
}

/// To f32 with any inexact result made odd: rounding that to fewer bits then rounds the double once
/// (Boldo and Melquiond 2008).
float to_odd_f32(double value) {
  const float nearest = static_cast<float>(value);
  const double back = static_cast<double>(nearest);
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (back != value && (bits & 1u) == 0) bits += std::abs(back) < std::abs(value) ? 1u : ~0u;
  return std::bit_cast<float>(bits);
}

float to_odd_f32(float value) { return value; }

template <typename Value>
std::optional<int64_t> encode(const Value* values, int64_t n, DType dtype, std::byte* out) {
  switch (dtype) {
    case DType::f32:
      return encode_as<uint32_t>(values, n, out, uint32_t{0x7f800000u}, [](Value v) {
        return std::bit_cast<uint32_t>(static_cast<float>(v));
      });
    case DType::f16:
      return encode_as<uint16_t>(values, n, out, uint16_t{0x7c00u},
                                 [](Value v) { return f32_to_f16(to_odd_f32(v)); });
    case DType::bf16:
      break;
  }
  return encode_as<uint16_t>(values, n, out, uint16_t{0x7f80u},
                             [](Value v) { return f32_to_bf16(to_odd_f32(v)); });
}

}  // namespace

void decode_elements(const std::byte* data, DType dtype, int64_t n, float* out) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, data, n * sizeof(float));
      return;
    case DType::f16:
      decode_as<uint16_t>(data, n, out, f16_to_f32);
      return;
    case DType::bf16:
      decode_as<uint16_t>(data, n, out, bf16_to_f32);
      return;
  }
}

std::optional<int64_t> encode_elements(const float* values, int64_t n, DType dtype,
                                       std::byte* out) {
  return encode(values, n, dtype, out);
}

std::optional<int64_t> encode_elements(const double* values, int64_t n, DType dtype,
                                       std::byte* out) {
  return encode(values, n, dtype, out);
}

}  // namespace gqa
