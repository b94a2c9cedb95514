// Elements in bulk between their stored type and what we compute in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "gqa/dtype.h"

namespace gqa {

/// `n` stored elements, maybe unaligned, as f32: exact.
void decode_elements(const std::byte* data, DType dtype, int64_t n, float* out);

/// Rounds `n` values once, to nearest even, and stores them. Returns the first that is not finite
/// once stored, if there is one.
std::optional<int64_t> encode_elements(const float* values, int64_t n, DType dtype, std::byte* out);
std::optional<int64_t> encode_elements(const double* values, int64_t n, DType dtype,
                                       std::byte* out);

}  // namespace gqa
