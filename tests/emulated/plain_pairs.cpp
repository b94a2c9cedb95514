// Products of bf16 in plain C++: all that goes into such products, and comes of them, is then as
// where there are tiles.
#include <cmath>
#include <limits>

#include "core/half.h"
#include "emulated/tables.h"

namespace gqa::kernels {
namespace {

/// Tiles take subnormal numbers for 0, and leave none.
float flushed(float x) { return std::abs(x) < std::numeric_limits<float>::min() ? 0.0f : x; }
float element(uint32_t bits) { return flushed(bf16_to_f32(static_cast<uint16_t>(bits))); }

/// Even and odd elements of a tile's depth in chains of their own, as tiles add them up; products
/// are exact.
float sum_of(const PairProduct& p, int64_t row, int64_t column) {
  const uint16_t* a = p.a + row * p.a_stride;
  float sum = 0;
  for (int64_t begin = 0; begin < p.depth; begin += pair_depth) {
    float even = 0, odd = 0;
    for (int64_t k = begin; k < begin + pair_depth; k += 2) {
      const uint32_t word = p.b[k / 2 * p.columns + column];
      even = flushed(even + element(a[k]) * element(word));
      odd = flushed(odd + element(a[k + 1]) * element(word >> 16));
    }
    sum = flushed(sum + flushed(even + odd));
  }
  return sum;
}

void multiply(const PairProduct& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t column = 0; column < p.columns; ++column) {
      float& c = p.c[row * p.c_stride + column];
      c = p.scale * sum_of(p, row, column) + (p.add ? c : 0.0f);
    }
  }
}

}  // namespace

const Table& emulated_pairs_table() {
  static const Table table = [] {
    Table changed = *tables().front();
    changed.isa = "bf16_emulated";
    changed.multiply_pairs = multiply;
    return changed;
  }();
  return table;
}

}  // namespace gqa::kernels
