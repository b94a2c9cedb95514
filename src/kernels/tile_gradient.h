// Products of bf16 of the backward of attention, in tiles.
#pragma once

#if defined(__x86_64__)

#include "kernels/tile_products.h"
#include "kernels/tile_shapes.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

/// As Table::multiply_pairs().
template <class Unit>
void multiply_pairs(const PairProduct& p) {
  using Product = TileProduct<Unit, Bf16Product<Unit>>;
  constexpr int64_t at_once = Product::most_tile_rows * tile_rows;
  alignas(64) std::byte sums[4 * tile_rows * tile_row_bytes];
  const __m512 scale = _mm512_set1_ps(p.scale);
  const TileWords words{reinterpret_cast<const std::byte*>(p.b), p.columns};
  for (int64_t row = 0; row < p.rows; row += at_once) {
    const int64_t n = std::min(at_once, p.rows - row);
    Shaped<Unit>::by(n, true);
    const int64_t most = Product::most_tiles(ceil_div(n, tile_rows));
    TilePart part{reinterpret_cast<const std::byte*>(p.a + row * p.a_stride),
                  p.a_stride * int64_t{sizeof(uint16_t)},
                  0,
                  words,
                  {}};
    for (int64_t column = 0; column < p.columns; column += most * tile_words) {
      const int64_t tiles = std::min(most, (p.columns - column) / tile_words);
      Product::multiply(std::span(&part, 1), p.depth, n, column, tiles,
                        {sums, most * tile_row_bytes, 0});
      for (int64_t r = 0; r < n; ++r) {
        float* c = p.c + (row + r) * p.c_stride + column;
        const std::byte* sum = sums + r * most * tile_row_bytes;
        for (int64_t j = 0; j < tiles; ++j, c += tile_words, sum += tile_row_bytes) {
          const __m512 old = p.add ? _mm512_loadu_ps(c) : _mm512_setzero_ps();
          _mm512_storeu_ps(c, _mm512_fmadd_ps(scale, _mm512_loadu_ps(sum), old));
        }
      }
    }
  }
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
