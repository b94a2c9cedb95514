// The element types of the safetensors format.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gqa/dtype.h"

namespace gqa {

struct SafetensorsDType {
  std::string_view name;       ///< as files say it: "BF16"
  int64_t bytes = 0;           ///< of an element
  std::optional<DType> dtype;  ///< none where we do not compute with it
};

/// Null where the name is unknown.
const SafetensorsDType* find_safetensors_dtype(std::string_view name);

/// "F32", "F16" or "BF16".
std::string_view safetensors_name(DType dtype);

/// "BOOL, U8, I8, ..."
std::string safetensors_dtype_names();

/// Elements of a dense tensor; nothing where a dimension is negative or the product does not fit.
std::optional<int64_t> dense_elements(const std::vector<int64_t>& shape);

}  // namespace gqa
