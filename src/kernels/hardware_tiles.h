// Tiles of the processor: AMX.
#pragma once

#if defined(__x86_64__)

// GCC 12 warns of its own intrinsics (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <hwy/base.h>

#include "kernels/tiles.h"

namespace gqa::kernels {

/// As assembly, since GCC 12's intrinsics take no template's argument for a tile's number, and do
/// not say which memory they read: a copy that only a tile is loaded from might never be made.
class HardwareTiles {
 public:
  /// This processor has AMX for bf16 and int8 and rounds to bf16, and Linux lets this process use
  /// it, which is asked for once; threads need not ask again.
  static bool available();

  static void configure(const TileShapes& shapes) {
    asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
  }
  static void release() { asm volatile("tilerelease" ::: "memory"); }
  template <int T>
  [[gnu::always_inline]] static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  template <int T>
  [[gnu::always_inline]] static void load(const void* rows, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  [[gnu::always_inline]] static void store(void* rows, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(stride), "i"(T) : "memory");
  }
  template <int C, int A, int B>
  [[gnu::always_inline]] static void add_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
  template <int C, int A, int B>
  [[gnu::always_inline]] static void add_int8() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
  static void round(const float* x, void* to);
  static void round(__m512 low, __m512 high, void* to);
};

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,fma")
inline void HardwareTiles::round(__m512 low, __m512 high, void* to) {
  __m512i rounded;
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(rounded) : "v"(high), "v"(low));
  _mm512_storeu_si512(to, rounded);
}
inline void HardwareTiles::round(const float* x, void* to) {
  round(_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16), to);
}
HWY_POP_ATTRIBUTES

}  // namespace gqa::kernels

#endif
