// Elements of somebody's array, as f32.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "kernels/kernels.h"

namespace gqa::kernels {

/// out [n] f32 = the elements of `data`, of type t, at first, first + stride, ...
inline void load_row(const Table& kernels, const void* data, DType t, int64_t first, int64_t stride,
                     int64_t n, float* out) {
  if (stride == 1) {
    kernels.decode(t, static_cast<const char*>(data) + first * dtype_bytes(t), n, out);
    return;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = load_element(data, t, first + i * stride);
}

}  // namespace gqa::kernels
