#include "gqa/dtype.h"

namespace gqa {

std::string_view dtype_name(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
  }
  return "?";
}

std::optional<DType> parse_dtype(std::string_view name) {
  if (name == "f32" || name == "float32") return DType::f32;
  if (name == "f16" || name == "float16") return DType::f16;
  if (name == "bf16" || name == "bfloat16") return DType::bf16;
  return std::nullopt;
}

// What kv_dtype() and element_dtype() rely on.
static_assert(static_cast<int>(DType::f32) == static_cast<int>(KvDType::f32) &&
              static_cast<int>(DType::f16) == static_cast<int>(KvDType::f16) &&
              static_cast<int>(DType::bf16) == static_cast<int>(KvDType::bf16));

std::string_view kv_dtype_name(KvDType t) {
  if (t == KvDType::int8) return "int8";
  if (t == KvDType::int4) return "int4";
  return dtype_name(element_dtype(t));
}

std::optional<KvDType> parse_kv_dtype(std::string_view name) {
  if (name == "int8") return KvDType::int8;
  if (name == "int4") return KvDType::int4;
  if (const auto t = parse_dtype(name)) return kv_dtype(*t);
  return std::nullopt;
}

std::string_view weight_dtype_name(WeightDType t) {
  return t == WeightDType::int8 ? "int8" : "stored";
}

std::optional<WeightDType> parse_weight_dtype(std::string_view name) {
  if (name == "stored") return WeightDType::stored;
  if (name == "int8") return WeightDType::int8;
  return std::nullopt;
}

}  // namespace gqa
