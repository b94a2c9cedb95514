// What AMX and AVX-512 VNNI do, in software.
#pragma once

#include "kernels/kernels.h"

namespace gqa::kernels {
namespace hardware_avx512 {

/// As amx_table() (kernels/amx.h), by tiles in software (emulated/tiles.h): every bit as AMX gives
/// it, slowly. `base` is a table of a processor with AVX-512.
const Table& emulated_amx_table(const Table& base);

}  // namespace hardware_avx512
namespace emulated_avx512 {

/// The same by AVX-512 in software, too. `base` is the table of avx2, or that of vnni_table().
const Table& emulated_amx_table(const Table& base);
/// As vnni_table() (kernels/vnni.h), by AVX-512 in software.
const Table& vnni_table(const Table& base);

}  // namespace emulated_avx512
}  // namespace gqa::kernels
