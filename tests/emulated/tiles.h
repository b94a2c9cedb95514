// Tiles in software: what Intel's manual (SDM, volume 2) says of the AMX instructions, to the bit.
#pragma once

#if defined(__x86_64__)

#include <cstring>

#include <hwy/base.h>

#include "kernels/tiles.h"

namespace gqa::kernels {

/// Needs AVX2, for speed. What makes the processor fault makes it throw Error.
class EmulatedTiles {
 public:
  static void configure(const TileShapes& shapes);
  static void release();
  template <int T>
  static void zero() {
    zero_tile(T);
  }
  template <int T>
  static void load(const void* rows, int64_t stride) {
    load_tile(T, rows, stride);
  }
  template <int T>
  static void store(void* rows, int64_t stride) {
    store_tile(T, rows, stride);
  }
  template <int C, int A, int B>
  static void add_bf16() {
    multiply_bf16(C, A, B);
  }
  template <int C, int A, int B>
  static void add_int8() {
    multiply_int8(C, A, B);
  }
  /// As VCVTNE2PS2BF16: what is subnormal becomes 0, NaN stays NaN.
  static void round(const float* x, void* to);
  template <class V>
  [[gnu::always_inline]] static void round(V low, V high, void* to) {
    float x[32];
    static_assert(2 * sizeof low == sizeof x);
    std::memcpy(x, &low, sizeof low);
    std::memcpy(x + 16, &high, sizeof high);
    round(x, to);
  }

 private:
  static void zero_tile(int tile);
  static void load_tile(int tile, const void* rows, int64_t stride);
  static void store_tile(int tile, void* rows, int64_t stride);
  static void multiply_bf16(int c, int a, int b);
  static void multiply_int8(int c, int a, int b);
};

}  // namespace gqa::kernels

#endif
