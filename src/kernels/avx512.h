// AVX-512: the processor's. Tests on processors without it compile the sources that include this
// once more, in a namespace of its own: GQA_EMULATE_AVX512 is then the header that has the same
// functions in software.
#pragma once

#if defined(__x86_64__)

// GCC 12 warns of its own intrinsics (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <hwy/base.h>

#if defined(GQA_EMULATE_AVX512)

#define GQA_AVX512 emulated_avx512
#define GQA_BEFORE_AVX512() HWY_PUSH_ATTRIBUTES("avx2,fma")
#include GQA_EMULATE_AVX512

#else

#define GQA_AVX512 hardware_avx512
#define GQA_BEFORE_AVX512() HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,fma")

GQA_BEFORE_AVX512()
namespace gqa::kernels::hardware_avx512 {

inline constexpr bool emulates = false;

/// sum + the dot products of each four bytes. As assembly since GCC 12 copies every accumulator of
/// the intrinsic back and forth, which takes a third of the speed.
[[gnu::always_inline]] inline void add_dots(__m512i& sum, __m512i unsigned_bytes, __m512i bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(bytes));
}

}  // namespace gqa::kernels::hardware_avx512
HWY_POP_ATTRIBUTES

#endif

#define GQA_AFTER_AVX512() HWY_POP_ATTRIBUTES

#endif
