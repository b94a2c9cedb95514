// Tables of kernels that do in software what this machine may lack, and to the bit, so that every
// machine tests the code of all. Tests that link them find them by name in a Context, too.
#pragma once

#include <span>

#include "kernels/kernels.h"

namespace gqa::kernels {

/// What stands for processors with AMX and with AVX-512 VNNI: the first has tiles. Empty without
/// AVX2.
std::span<const Table* const> emulated_tables();
/// The best table but for products of bf16, which are in software.
const Table& emulated_pairs_table();
/// The best table whose stretches are of one block, but with stretches of several, as of tiles.
const Table& stretches_table();

}  // namespace gqa::kernels
