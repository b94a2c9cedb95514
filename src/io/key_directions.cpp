#include "io/key_directions.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/fail.h"
#include "core/text.h"
#include "io/checkpoint.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// Rows are orthonormal in double and rounded to f32: the products are off by less than
/// 2 * head_dim / 2^24. What is off by more was not made so.
constexpr double loosest = 1e-3;

void check_orthonormal(const Tensor& tensor, int64_t head_dim, const std::vector<float>& values) {
  const int64_t head = head_dim * head_dim;
  for (int64_t at = 0; at < std::ssize(values); at += head) {
    for (int64_t a = 0; a < head_dim; ++a) {
      for (int64_t b = 0; b <= a; ++b) {
        double product = 0;
        for (int64_t d = 0; d < head_dim; ++d) {
          product += static_cast<double>(values[static_cast<size_t>(at + a * head_dim + d)]) *
                     static_cast<double>(values[static_cast<size_t>(at + b * head_dim + d)]);
        }
        if (std::abs(product - (a == b ? 1.0 : 0.0)) <= loosest) continue;
        fail(ErrorKind::bad_data,
             "{}: tensor `{}`: expected orthonormal rows, got a product of {:.6g} for rows {} and "
             "{} of KV head {}",
             tensor.file->string(), tensor.name, product, b, a, at / head);
      }
    }
  }
}

std::vector<float> read_layer(const SafetensorsFile& file, const fs::path& path, int64_t layer,
                              const ModelConfig& config) {
  const std::string name = key_directions_tensor(layer);
  const auto found = std::ranges::find(file.tensors(), name, &Tensor::name);
  if (found == file.tensors().end()) {
    fail(ErrorKind::bad_data, "{}: tensor `{}` is missing", path.string(), name);
  }
  const std::vector<int64_t> shape = {config.kv_heads[static_cast<size_t>(layer)], config.head_dim,
                                      config.head_dim};
  if (found->shape != shape || found->dtype != DType::f32) {
    fail(ErrorKind::bad_data, "{}: tensor `{}`: expected F32 {}, got {} {}", path.string(), name,
         shape_text(shape), found->dtype_name, shape_text(found->shape));
  }
  std::vector<float> values(static_cast<size_t>(found->elements));
  std::memcpy(values.data(), found->data, static_cast<size_t>(found->bytes));
  check_finite(*found);
  check_orthonormal(*found, config.head_dim, values);
  return values;
}

}  // namespace

std::string key_directions_tensor(int64_t layer) {
  return fmt::format("model.layers.{}.key_directions", layer);
}

bool has_key_directions(const fs::path& dir) {
  std::error_code unreadable;
  return fs::exists(dir / key_directions_name, unreadable) || unreadable;
}

std::vector<std::vector<float>> read_key_directions(const fs::path& dir,
                                                    const ModelConfig& config) {
  const fs::path path = dir / key_directions_name;
  const SafetensorsFile file(path);
  std::vector<std::vector<float>> layers;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    layers.push_back(read_layer(file, path, l, config));
  }
  if (std::ssize(file.tensors()) != config.n_layers) {
    fail(ErrorKind::bad_data, "{}: expected a tensor for each of {} layers, got {} tensors",
         path.string(), config.n_layers, file.tensors().size());
  }
  return layers;
}

}  // namespace gqa
