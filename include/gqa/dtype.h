// Storage types of tensors, weights and caches.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace gqa {
#pragma GCC visibility push(default)

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

/// How a KV cache stores keys and values: as elements of the DType of the same name, or quantised:
/// each token's vector of a KV head as small integers with one f32 scale for all of them,
/// x ~ scale * q, |q| <= 127 (int8) or 7 (int4). Arrays are never of these two: without its scale
/// an integer means nothing.
enum class KvDType : uint8_t { f32, f16, bf16, int8, int4 };

constexpr bool is_quantised(KvDType t) { return t == KvDType::int8 || t == KvDType::int4; }

/// The cache type whose elements are of type t.
constexpr KvDType kv_dtype(DType t) { return static_cast<KvDType>(t); }
/// The inverse; t must not be quantised.
constexpr DType element_dtype(KvDType t) { return static_cast<DType>(t); }

/// Bytes that a vector of n elements takes in a cache, its scale included. Caches pack bf16, int8
/// and int4 into words of 4 bytes: n is rounded up to whole ones.
constexpr int64_t kv_vector_bytes(KvDType t, int64_t n) {
  constexpr int64_t word = 4;
  constexpr int64_t scale = sizeof(float);
  switch (t) {
    case KvDType::f32:
      return n * word;
    case KvDType::f16:
      return n * 2;
    case KvDType::bf16:
      return (n + 1) / 2 * word;
    case KvDType::int8:
      return (n + 3) / 4 * word + scale;
    case KvDType::int4:
      return (n + 7) / 8 * word + scale;
  }
  return 0;
}

/// What a model's matrices are multiplied as: as their checkpoint stores them, or quantised when
/// they are loaded, 64 inputs of an output as integers with one f32 scale, w ~ scale * q, |q| <=
/// 127.
enum class WeightDType : uint8_t { stored, int8 };

/// "stored" or "int8".
std::string_view weight_dtype_name(WeightDType t);

/// The inverse of weight_dtype_name(). Empty where the name is unknown.
std::optional<WeightDType> parse_weight_dtype(std::string_view name);

/// "f32", "f16", "bf16", "int8" or "int4".
std::string_view kv_dtype_name(KvDType t);

/// The inverse of kv_dtype_name(); also takes what parse_dtype() does. Empty where the name is
/// unknown.
std::optional<KvDType> parse_kv_dtype(std::string_view name);

#pragma GCC visibility pop
}  // namespace gqa
