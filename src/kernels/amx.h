// Products in tiles for bf16, int8 and int4 caches, by AMX.
#pragma once

#include "kernels/kernels.h"

namespace gqa::kernels::hardware_avx512 {

/// `base`, the table of avx512, with products in tiles; null where this machine has none.
///
/// Caches are multiplied as they lie, 16 rows by 16 columns at a time. Of int8 and int4 caches the
/// products are those of vnni.h, to the bit. For bf16 caches queries and weights are rounded to
/// bf16 and sums stay in f32, those of weights among them: a query that is bf16 keeps its value,
/// and what rounds is the share of each key, by at most 2^-8 of itself, independently of the
/// others.
const Table* amx_table(const Table& base);

}  // namespace gqa::kernels::hardware_avx512
