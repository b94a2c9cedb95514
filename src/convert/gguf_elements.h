// Elements as GGUF stores them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "gqa/gguf_dtype.h"

namespace gqa {

/// Stores a row of `n` values, a whole number of blocks where the type has them. Returns the first
/// that does not fit, if there is one: not finite once stored or, of a block, by its scale.
std::optional<int64_t> encode_gguf_row(const float* values, int64_t n, GgufDType dtype,
                                       std::byte* out);

}  // namespace gqa
