// Dense products with weights in their stored type.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "gqa/dtype.h"
#include "kernels/context.h"

namespace gqa {

/// y = x W^T + b, as a checkpoint stores it, or with W quantised.
struct Linear {
  const void* weight = nullptr;  ///< [out][in], dense, aligned to its type
  DType dtype = DType::f32;      ///< in the checkpoint
  int64_t in = 0;
  int64_t out = 0;
  std::vector<float> bias;        ///< [out], or empty
  const float* scales = nullptr;  ///< [out][int8_blocks(in)]: weights are int8; or null

  /// The weights and the scales, if there are any.
  std::array<std::span<const std::byte>, 2> memory() const;
};

/// y [rows][out] = x [rows][in] * W^T + b, f32; 16-bit weights are decoded on the way. Each row has
/// the bits it has alone: neither the rows beside it nor the number of threads changes one.
void linear(Context::Impl& context, const Linear& layer, const float* x, int64_t rows, float* y);

}  // namespace gqa
