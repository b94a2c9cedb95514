// Integer products for int8 and int4 caches, by AVX-512 VNNI.
#pragma once

#include "kernels/kernels.h"

namespace gqa::kernels::hardware_avx512 {

/// `base`, the table of avx512, with products of 8-bit integers for quantised caches, for
/// processors with VNNI.
///
/// Queries and weights become integers of 16 bits, x ~ scale * (256 high + low) with a scale for
/// each row, and both pieces are multiplied by the cache's integers: exact sums, then two
/// roundings. That takes half the instructions of multiply-adds in f32, and no decoding. What
/// remains of the rounding is below 2^-16 of the largest element of a query, or of a block's
/// weights.
const Table& vnni_table(const Table& base);

}  // namespace gqa::kernels::hardware_avx512
