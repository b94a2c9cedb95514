#include "model/key_directions.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/fail.h"
#include "io/checkpoint.h"
#include "model/layout.h"

namespace gqa {
namespace {

constexpr const char* file_name = "key_directions.safetensors";

const Tensor& tensor_of_layer(const SafetensorsFile& file, int64_t layer, const ModelConfig& c) {
  const std::string name = layer_tensor(layer, "key_directions");
  const auto found = std::ranges::find(file.tensors(), name, &Tensor::name);
  const std::string path = file.mapped().path().string();
  if (found == file.tensors().end()) {
    fail(ErrorKind::bad_data, "{}: tensor `{}`: missing", path, name);
  }
  const std::vector<int64_t> shape{c.kv_heads[static_cast<size_t>(layer)], c.head_dim, c.head_dim};
  if (found->dtype != DType::f32 || found->shape != shape) {
    fail(ErrorKind::bad_data, "{}: tensor `{}`: expected F32 {}, got {} {}", path, name,
         shape_text(shape), found->dtype_name, shape_text(found->shape));
  }
  check_finite(*found);
  return *found;
}

/// Rows of every head: products with one another and with themselves.
void check_orthonormal(const Tensor& tensor, const std::vector<float>& values) {
  constexpr double tolerance = 1e-3;
  const int64_t dim = tensor.shape[2];
  for (int64_t head = 0; head < tensor.shape[0]; ++head) {
    const float* rows = values.data() + head * dim * dim;
    for (int64_t i = 0; i < dim; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        double product = 0;
        for (int64_t d = 0; d < dim; ++d) {
          product += static_cast<double>(rows[i * dim + d]) * rows[j * dim + d];
        }
        const double expected = i == j ? 1 : 0;
        if (std::abs(product - expected) <= tolerance) continue;
        fail(ErrorKind::bad_data,
             "{}: tensor `{}`: expected orthonormal rows, got a product of {:.4g} for rows {} and "
             "{} of head {}",
             tensor.file->string(), tensor.name, product, j, i, head);
      }
    }
  }
}

}  // namespace

KeyDirections read_key_directions(const std::filesystem::path& dir, const ModelConfig& config) {
  const std::filesystem::path path = dir / file_name;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  const SafetensorsFile file(path);
  KeyDirections directions;
  std::set<std::string> names;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    const Tensor& tensor = tensor_of_layer(file, l, config);
    std::vector<float> values(static_cast<size_t>(tensor.elements));
    std::memcpy(values.data(), tensor.data, static_cast<size_t>(tensor.bytes));
    check_orthonormal(tensor, values);
    directions.layers.push_back(std::move(values));
    names.insert(tensor.name);
  }
  for (const Tensor& tensor : file.tensors()) {
    if (names.contains(tensor.name)) continue;
    fail(ErrorKind::bad_data, "{}: tensor `{}`: expected one for each of {} layers, no more",
         path.string(), tensor.name, config.n_layers);
  }
  return directions;
}

}  // namespace gqa
