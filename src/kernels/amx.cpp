#include "kernels/amx.h"

#if defined(__x86_64__)

#include "kernels/hardware_tiles.h"
#include "kernels/tiled_table.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::hardware_avx512 {

const Table* amx_table(const Table& base) {
  if (!HardwareTiles::available()) return nullptr;
  static const Table table = Tiled<HardwareTiles>::table(base, "avx512_amx");
  return &table;
}

}  // namespace gqa::kernels::hardware_avx512
GQA_AFTER_AVX512()

#endif
