// Storage types of the tensors of a GGUF file.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace gqa {
#pragma GCC visibility push(default)

/// q8_0: blocks of 32 neighbouring elements of a row as integers with one f16 scale,
/// x ~ scale * q, |q| <= 127.
enum class GgufDType : uint8_t { f32, f16, bf16, q8_0 };

/// "f32", "f16", "bf16" or "q8_0".
std::string_view gguf_dtype_name(GgufDType t);

/// The inverse of gguf_dtype_name(). Empty where the name is unknown.
std::optional<GgufDType> parse_gguf_dtype(std::string_view name);

#pragma GCC visibility pop
}  // namespace gqa
