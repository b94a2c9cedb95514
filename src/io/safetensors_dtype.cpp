#include "io/safetensors_dtype.h"

#include "core/checked.h"

namespace gqa {
namespace {

constexpr SafetensorsDType dtypes[] = {
    {"BOOL", 1, {}},          {"U8", 1, {}},          {"I8", 1, {}},  {"F8_E4M3", 1, {}},
    {"F8_E5M2", 1, {}},       {"U16", 2, {}},         {"I16", 2, {}}, {"U32", 4, {}},
    {"I32", 4, {}},           {"U64", 8, {}},         {"I64", 8, {}}, {"F16", 2, DType::f16},
    {"BF16", 2, DType::bf16}, {"F32", 4, DType::f32}, {"F64", 8, {}},
};

}  // namespace

const SafetensorsDType* find_safetensors_dtype(std::string_view name) {
  for (const auto& dtype : dtypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

std::string_view safetensors_name(DType dtype) {
  for (const auto& known : dtypes) {
    if (known.dtype == dtype) return known.name;
  }
  return {};  // every DType is in the table (tested)
}

std::string safetensors_dtype_names() {
  std::string names;
  for (const auto& dtype : dtypes) {
    if (!names.empty()) names += ", ";
    names += dtype.name;
  }
  return names;
}

std::optional<int64_t> dense_elements(const std::vector<int64_t>& shape) {
  std::optional<int64_t> product = 1;
  for (const int64_t size : shape) {
    product = checked_mul(*product, size);
    if (!product) return product;
  }
  return product;
}

}  // namespace gqa
