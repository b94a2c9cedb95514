// For which instruction sets the kernels are compiled.
#pragma once

// SSSE3 and AVX3_DL would add nothing to these kernels but compile time; SVE has no vectors of a
// size known to the compiler, which register tiles need.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
