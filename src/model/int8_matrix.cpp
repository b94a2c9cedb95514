#include "model/int8_matrix.h"

#include <algorithm>
#include <vector>

namespace gqa {

Int8Matrix quantise(const kernels::Table& kernels, Linear& layer) {
  constexpr int32_t largest = 127;
  const int64_t blocks = kernels::int8_blocks(layer.in);
  Int8Matrix matrix;
  auto* q = static_cast<int8_t*>(matrix.weight.reserve(layer.out * layer.in));
  auto* scale = static_cast<float*>(
      matrix.scales.reserve(layer.out * blocks * static_cast<int64_t>(sizeof(float))));
  const auto* row = static_cast<const char*>(layer.weight);
  std::vector<float> values(static_cast<size_t>(layer.in));
  for (int64_t o = 0; o < layer.out; ++o, row += layer.in * dtype_bytes(layer.dtype)) {
    kernels.decode(layer.dtype, row, layer.in, values.data());
    for (int64_t i = 0; i < layer.in; i += kernels::int8_block) {
      const int64_t n = std::min(kernels::int8_block, layer.in - i);
      *scale++ = kernels.quantise(values.data() + i, n, largest, q + o * layer.in + i);
    }
  }
  layer.weight = matrix.weight.data();
  layer.scales = static_cast<const float*>(matrix.scales.data());
  return matrix;
}

}  // namespace gqa
