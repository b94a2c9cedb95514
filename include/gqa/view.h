// Views of arrays that somebody else owns.
#pragma once

#include <array>
#include <cstdint>

#include "gqa/dtype.h"

namespace gqa {
#pragma GCC visibility push(default)

/// Row-major strides (in elements) of a dense array of this shape.
template <int N>
constexpr std::array<int64_t, N> dense_strides(const std::array<int64_t, N>& shape) {
  std::array<int64_t, N> strides{};
  int64_t step = 1;
  for (int i = N - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/// A read-only N-dimensional array of elements of type `dtype`. Shapes are written outermost
/// first; strides count elements and may be zero or negative. Owns nothing.
template <int N>
struct AnyView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::array<int64_t, N> shape{};
  std::array<int64_t, N> strides{};

  AnyView() = default;
  /// A dense row-major array.
  AnyView(const void* p, DType t, const std::array<int64_t, N>& s)
      : data(p), dtype(t), shape(s), strides(dense_strides<N>(s)) {}
  AnyView(const void* p, DType t, const std::array<int64_t, N>& s, const std::array<int64_t, N>& st)
      : data(p), dtype(t), shape(s), strides(st) {}
};

/// The same, writable.
template <int N>
struct AnyMutView {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::array<int64_t, N> shape{};
  std::array<int64_t, N> strides{};

  AnyMutView() = default;
  AnyMutView(void* p, DType t, const std::array<int64_t, N>& s)
      : data(p), dtype(t), shape(s), strides(dense_strides<N>(s)) {}
  AnyMutView(void* p, DType t, const std::array<int64_t, N>& s, const std::array<int64_t, N>& st)
      : data(p), dtype(t), shape(s), strides(st) {}
};

#pragma GCC visibility pop
}  // namespace gqa
