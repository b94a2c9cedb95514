#include "convert/gguf_elements.h"

#include <cmath>
#include <cstring>

#include "convert/elements.h"
#include "core/half.h"
#include "io/gguf_writer.h"

namespace gqa {
namespace {

/// Rounds with the scale as it is before it becomes f16, ties away from zero: as ggml does, so that
/// blocks are the same.
std::optional<int64_t> encode_q8_0(const float* values, std::byte* out) {
  int64_t largest = 0;
  for (int64_t i = 1; i < q8_0_block; ++i) {
    if (std::abs(values[i]) > std::abs(values[largest])) largest = i;
  }
  const float scale = std::abs(values[largest]) / 127.0f;
  // Of a scale whose inverse overflows nothing is left in f16: such blocks are zeros.
  const float inverse = scale >= 0x1p-126f ? 1.0f / scale : 0.0f;
  const uint16_t stored = f32_to_f16(scale);
  if (!std::isfinite(f16_to_f32(stored))) return largest;
  std::memcpy(out, &stored, sizeof stored);
  for (int64_t i = 0; i < q8_0_block; ++i) {
    out[sizeof stored + i] = static_cast<std::byte>(std::lround(values[i] * inverse));
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> encode_gguf_row(const float* values, int64_t n, GgufDType dtype,
                                       std::byte* out) {
  switch (dtype) {
    case GgufDType::f32:
      return encode_elements(values, n, DType::f32, out);
    case GgufDType::f16:
      return encode_elements(values, n, DType::f16, out);
    case GgufDType::bf16:
      return encode_elements(values, n, DType::bf16, out);
    case GgufDType::q8_0:
      break;
  }
  for (int64_t i = 0; i < n; i += q8_0_block, out += q8_0_block_bytes) {
    if (const auto bad = encode_q8_0(values + i, out)) return i + *bad;
  }
  return std::nullopt;
}

}  // namespace gqa
