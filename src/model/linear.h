// Dense products with weights in their stored type.
#pragma once

#include <cstdint>
#include <vector>

#include "gqa/dtype.h"
#include "kernels/context.h"

namespace gqa {

/// y = x W^T + b, as a checkpoint stores it.
struct Linear {
  const void* weight = nullptr;  ///< [out][in], dense, aligned to its type
  DType dtype = DType::f32;
  int64_t in = 0;
  int64_t out = 0;
  std::vector<float> bias;  ///< [out], or empty
};

/// y [rows][out] = x [rows][in] * W^T + b, f32. Few rows (decoding) go through our own kernel,
/// which reads the weights once in their stored type and gives each row the same bits whatever the
/// others are; more rows go through SGEMM, 16-bit weights a panel at a time. The number of threads
/// changes no bit.
void linear(Context::Impl& context, const Linear& layer, const float* x, int64_t rows, float* y);

}  // namespace gqa
