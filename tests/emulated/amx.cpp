// Tiles in software beside vectors of AVX-512, the processor's or those of software.
#include "emulated/amx.h"

#if defined(__x86_64__)

#include "emulated/tiles.h"
#include "kernels/tiled_table.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

const Table& emulated_amx_table(const Table& base) {
  static const Table table = Tiled<EmulatedTiles>::table(base, "amx_emulated");
  return table;
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
