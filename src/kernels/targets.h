// For which instruction sets the kernels are compiled.
#pragma once

// SSSE3 and AVX3_DL would add nothing to these kernels but compile time; SVE has no vectors of a
// size known to the compiler, which register tiles need.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif

// Every AArch64 has NEON, so nothing need be dispatched. Highway would, and compile NEON with a
// pragma that also asks for AES, which GCC 12 does not apply to constructors that it makes up:
// those of a struct of vectors could not call the vectors' own. This is Highway's way to say so.
#if defined(__aarch64__)
#define TOOLCHAIN_MISS_SYS_AUXV_H
#endif
