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

/// The other way: elements at first, first + stride, ... = row [n].
inline void store_row(const Table& kernels, const float* row, int64_t n, void* data, DType t,
                      int64_t first, int64_t stride) {
  if (stride == 1) {
    kernels.encode(t, row, n, static_cast<char*>(data) + first * dtype_bytes(t));
    return;
  }
  for (int64_t d = 0; d < n; ++d) store_element(data, t, first + d * stride, row[d]);
}

}  // namespace gqa::kernels
