// Storage types of tensors, weights and caches.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace gqa {

/// How an element is stored. Arithmetic is always f32 (or wider).
/// f16 is IEEE binary16; bf16 is the upper half of binary32.
enum class DType : uint8_t { f32, f16, bf16 };

/// Bytes that one element takes.
constexpr int64_t dtype_bytes(DType t) { return t == DType::f32 ? 4 : 2; }

/// "f32", "f16" or "bf16".
std::string_view dtype_name(DType t);

/// The inverse of dtype_name(); also takes "float32", "float16", "bfloat16".
/// Empty where the name is unknown.
std::optional<DType> parse_dtype(std::string_view name);

}  // namespace gqa
