// Scores and weighed values by products in tiles.
#pragma once

#if defined(__x86_64__)

#include <algorithm>
#include <array>
#include <span>

#include "kernels/tile_shapes.h"
#include "kernels/tile_words.h"
#include "kernels/weighed_blocks.h"

GQA_BEFORE_AVX512()
namespace gqa::kernels::GQA_AVX512 {

/// Sums of integers of up to 16 rows and some columns.
template <class Unit>
class IntegerSums {
 public:
  using P = Int8Product<Unit>;
  static constexpr int64_t most = TileProduct<Unit, P>::most_tiles(1);

  void multiply(std::span<TilePart> parts, int64_t n, int64_t rows, int64_t column, int64_t tiles) {
    TileProduct<Unit, P>::multiply(parts, n, rows, column, tiles, {sums_, row_, tile_rows * row_});
  }
  /// 16 sums of a row, of tile j of columns, times a scale.
  [[gnu::always_inline]] __m512 at(int64_t row, int64_t j, float scale) const {
    const std::byte* c = sums_ + row * row_ + j * tile_row_bytes;
    return combine(_mm512_loadu_si512(c), _mm512_loadu_si512(c + tile_rows * row_), scale);
  }

 private:
  static constexpr int64_t row_ = most * tile_row_bytes;
  alignas(64) std::byte sums_[P::kPieces * tile_rows * row_];
};

template <class P>
TilePart prepared_part(const std::byte* rows, int64_t n, const TileWords& words, AheadLines ahead) {
  return {rows + split_line, row_bytes<P>(n), chunks<P>(n) * tile_row_bytes, words, ahead};
}

template <class Unit>
void score_integers(const std::byte* queries, int64_t rows, int64_t head_dim,
                    const TileWords& words, Range keys, float* scores, int64_t scores_row,
                    const Ahead& next) {
  using P = Int8Product<Unit>;
  IntegerSums<Unit> sums;
  const int64_t begin = keys.begin / tile_words;
  const int64_t end = ceil_div(keys.end, tile_words);
  AheadLines ahead(next, ceil_div(rows, tile_rows) * (end - begin) * chunks<P>(head_dim));
  for (int64_t row = 0; row < rows; row += tile_rows) {
    const int64_t n = std::min(tile_rows, rows - row);
    Shaped<Unit>::by(n, false);
    const std::byte* q = queries + row * row_bytes<P>(head_dim);
    TilePart part = prepared_part<P>(q, head_dim, words, ahead);
    for (int64_t tile = begin; tile < end; tile += sums.most) {
      const int64_t tiles = std::min(sums.most, end - tile);
      sums.multiply(std::span(&part, 1), head_dim, n, tile * tile_words, tiles);
      for (int64_t r = 0; r < n; ++r) {
        const float scale = split_header(q + r * row_bytes<P>(head_dim)).scale;
        float* to = scores + (row + r) * scores_row + tile * tile_words;
        for (int64_t j = 0; j < tiles; ++j) {
          _mm512_storeu_ps(to + j * tile_words, sums.at(r, j, scale));
        }
      }
    }
    ahead = part.ahead;
  }
}

template <class Unit>
void score_bf16(const std::byte* queries, int64_t rows, int64_t head_dim, const TileWords& words,
                Range keys, float* scores, int64_t scores_row, const Ahead& next) {
  using P = Bf16Product<Unit>;
  using Product = TileProduct<Unit, P>;
  const int64_t begin = keys.begin / tile_words;
  const int64_t end = ceil_div(keys.end, tile_words);
  const int64_t at_once = Product::most_tile_rows * tile_rows;
  AheadLines ahead(next, ceil_div(rows, at_once) * (end - begin) * chunks<P>(head_dim));
  const int64_t float_bytes = sizeof(float);
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t n = std::min(at_once, rows - row);
    Shaped<Unit>::by(n, true);
    const int64_t most = Product::most_tiles(ceil_div(n, tile_rows));
    TilePart part =
        prepared_part<P>(queries + row * row_bytes<P>(head_dim), head_dim, words, ahead);
    auto* const to = reinterpret_cast<std::byte*>(scores + row * scores_row);
    for (int64_t tile = begin; tile < end; tile += most) {
      Product::multiply(std::span(&part, 1), head_dim, n, tile * tile_words,
                        std::min(most, end - tile),
                        {to + tile * tile_row_bytes, scores_row * float_bytes, 0});
    }
    ahead = part.ahead;
  }
  // What softmax scales has a scale of 1 here: all rows alike.
  if (split_header(queries).scale == 1.0f) return;
  for (int64_t r = 0; r < rows; ++r) {
    const __m512 scale = _mm512_set1_ps(split_header(queries + r * row_bytes<P>(head_dim)).scale);
    float* row = scores + r * scores_row;
    for (int64_t j = begin * tile_words; j < end * tile_words; j += tile_words) {
      _mm512_storeu_ps(row + j, _mm512_mul_ps(_mm512_loadu_ps(row + j), scale));
    }
  }
}

// All keys of a block count, those with weight 0, too: it makes no difference how many rows see
// which of them. Sums start from 0 and are added in f32 to what rows have, whose subnormal numbers
// no tile would keep; a row that sees nothing keeps all its bits.

inline bool sees_any(std::span<const WeighedBlock> blocks, int64_t row) {
  return std::any_of(blocks.begin(), blocks.end(),
                     [&](const WeighedBlock& block) { return block.visible[row] != 0; });
}

/// What is asked for beside each block, spread over so many steps.
inline std::array<AheadLines, stretch_blocks> aheads(std::span<const WeighedBlock> blocks,
                                                     int64_t steps) {
  std::array<AheadLines, stretch_blocks> ahead;
  for (size_t i = 0; i < blocks.size(); ++i) ahead[i] = AheadLines(*blocks[i].next, steps);
  return ahead;
}

template <class Unit>
void accumulate_integers(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim,
                         float* acc, int64_t acc_row) {
  using P = Int8Product<Unit>;
  constexpr int64_t prepared_row = row_bytes<P>(key_block);
  alignas(64) std::byte prepared[stretch_blocks][tile_rows * prepared_row];
  IntegerSums<Unit> sums;
  const int64_t columns = round_up(v_head_dim, tile_words);
  const int64_t end = columns / tile_words;
  auto ahead = aheads(blocks, ceil_div(rows, tile_rows) * end * chunks<P>(key_block));
  for (int64_t row = 0; row < rows; row += tile_rows) {
    const int64_t n = std::min(tile_rows, rows - row);
    const SeenBlocks seen(blocks, row, n);
    if (seen.size() == 0) continue;
    Shaped<Unit>::by(n, false);
    std::array<TilePart, stretch_blocks> parts;
    std::array<const float*, stretch_blocks> weights;
    std::array<std::byte*, stretch_blocks> to;
    size_t count = 0;
    for (const size_t i : seen) {
      weights[count] = blocks[i].weights + row * blocks[i].weights_row;
      to[count] = prepared[i];
      const auto* words = static_cast<const std::byte*>(blocks[i].v->words);
      parts[count++] = prepared_part<P>(prepared[i], key_block, {words, columns}, ahead[i]);
    }
    for (int64_t r = 0; r < n; ++r) {
      split_weights(weights.data(), static_cast<int64_t>(count), to.data());
      for (size_t i = 0; i < count; ++i) {
        weights[i] += blocks[0].weights_row;
        to[i] += prepared_row;
      }
    }
    for (int64_t tile = 0; tile < end; tile += sums.most) {
      const int64_t tiles = std::min(sums.most, end - tile);
      sums.multiply(std::span(parts.data(), count), key_block, n, tile * tile_words, tiles);
      for (int64_t r = 0; r < n; ++r) {
        if (!sees_any(blocks, row + r)) continue;
        const float scale = split_header(prepared[*seen.begin()] + r * prepared_row).scale;
        float* c = acc + (row + r) * acc_row + tile * tile_words;
        for (int64_t j = 0; j < tiles; ++j, c += tile_words) {
          _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), sums.at(r, j, scale)));
        }
      }
    }
    count = 0;
    for (const size_t i : seen) ahead[i] = parts[count++].ahead;
  }
}

/// Sums of bf16 of up to 32 rows and some columns, over the keys of a stretch.
template <class Unit>
class Bf16Sums {
 public:
  using Product = TileProduct<Unit, Bf16Product<Unit>>;
  static constexpr int64_t at_once = Product::most_tile_rows * tile_rows;

  explicit Bf16Sums(int64_t rows)
      : rows_(rows), most_(Product::most_tiles(ceil_div(rows, tile_rows))) {}

  int64_t most() const { return most_; }
  void multiply(std::span<TilePart> parts, int64_t column, int64_t tiles) {
    Product::multiply(parts, key_block, rows_, column, tiles, {sums_, most_ * tile_row_bytes, 0});
  }
  [[gnu::always_inline]] __m512 at(int64_t row, int64_t j) const {
    return _mm512_loadu_ps(sums_ + (row * most_ + j) * tile_row_bytes);
  }
  /// One value that is not finite makes the sums of all rows so, whatever their weights: it shows
  /// in the first.
  bool finite(int64_t tiles) const {
    constexpr int nan_or_infinite = 0x99;
    bool all = true;
    for (int64_t j = 0; j < tiles; ++j) {
      all &= _mm512_fpclass_ps_mask(at(0, j), nan_or_infinite) == 0;
    }
    return all;
  }

 private:
  int64_t rows_, most_;
  alignas(64) std::byte sums_[4 * tile_rows * tile_row_bytes];
};

/// Weights of a row and block, as softmax leaves them.
inline const std::byte* bf16_weights(const WeighedBlock& block, int64_t row) {
  return reinterpret_cast<const std::byte*>(block.weights + row * block.weights_row);
}

/// The same sums of those values that are finite.
template <class Unit>
void multiply_finite(Bf16Sums<Unit>& sums, std::span<const TilePart> parts, int64_t column,
                     int64_t tiles) {
  alignas(64) int32_t finite[stretch_blocks][key_block / 2 * 4 * tile_words];
  std::array<TilePart, stretch_blocks> clean;
  for (size_t i = 0; i < parts.size(); ++i) {
    copy_finite(parts[i].words, key_block / 2, column, tiles, finite[i]);
    clean[i] = parts[i];
    clean[i].words = {reinterpret_cast<const std::byte*>(finite[i]), tiles * tile_words};
    clean[i].ahead = {};
  }
  sums.multiply(std::span(clean.data(), parts.size()), 0, tiles);
}

template <class Unit>
void accumulate_bf16(std::span<const WeighedBlock> blocks, int64_t rows, int64_t v_head_dim,
                     float* acc, int64_t acc_row) {
  constexpr int64_t at_once = Bf16Sums<Unit>::at_once;
  const int64_t columns = round_up(v_head_dim, tile_words);
  const int64_t end = columns / tile_words;
  auto ahead = aheads(blocks, ceil_div(rows, at_once) * end * chunks<Bf16Product<Unit>>(key_block));
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t n = std::min(at_once, rows - row);
    const SeenBlocks seen(blocks, row, n);
    if (seen.size() == 0) continue;
    Shaped<Unit>::by(n, true);
    std::array<TilePart, stretch_blocks> parts;
    size_t count = 0;
    for (const size_t i : seen) {
      const TileWords words{static_cast<const std::byte*>(blocks[i].v->words), columns};
      parts[count++] = {bf16_weights(blocks[i], row),
                        blocks[i].weights_row * int64_t{sizeof(float)}, 0, words, ahead[i]};
    }
    const std::span<TilePart> all(parts.data(), count);
    Bf16Sums<Unit> sums(n);
    for (int64_t tile = 0; tile < end; tile += sums.most()) {
      const int64_t tiles = std::min(sums.most(), end - tile);
      const int64_t column = tile * tile_words;
      sums.multiply(all, column, tiles);
      const bool finite = sums.finite(tiles);
      if (!finite) multiply_finite(sums, all, column, tiles);
      for (int64_t r = 0; r < n; ++r) {
        if (!sees_any(blocks, row + r)) continue;
        float* c = acc + (row + r) * acc_row + column;
        for (int64_t j = 0; j < tiles; ++j, c += tile_words) {
          _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), sums.at(r, j)));
        }
      }
      if (finite) continue;
      for (const size_t i : seen) {
        add_not_finite(blocks[i], row, n,
                       {static_cast<const std::byte*>(blocks[i].v->words), columns}, column,
                       column + tiles * tile_words, acc, acc_row);
      }
    }
    count = 0;
    for (const size_t i : seen) ahead[i] = parts[count++].ahead;
  }
}

}  // namespace gqa::kernels::GQA_AVX512
GQA_AFTER_AVX512()

#endif
