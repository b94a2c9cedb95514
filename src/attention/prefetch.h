// Rows that are wanted soon.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "gqa/view.h"

namespace gqa {

/// A tile's rows lie far apart, token by token: they are asked for this many tokens ahead.
inline constexpr int64_t tokens_ahead = 4;

/// Asks for [t, h, :], if it lies in one piece.
inline void prefetch_row(const AnyView<3>& x, int64_t t, int64_t h) {
  if (x.strides[2] != 1) return;
  const int64_t element = dtype_bytes(x.dtype);
  const auto* p =
      static_cast<const char*>(x.data) + (t * x.strides[0] + h * x.strides[1]) * element;
  for (int64_t i = 0; i < x.shape[2] * element; i += 64) __builtin_prefetch(p + i);
}

}  // namespace gqa
