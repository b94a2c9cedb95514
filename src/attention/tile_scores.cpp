// What rows see of a block, and what a score is besides a product.
#include <algorithm>

#include "attention/tile.h"
#include "kernels/load_row.h"

namespace gqa {

using kernels::key_block;

namespace {

/// Every row sees the same keys, `any`, and those in one piece.
bool alike(uint64_t any, const uint64_t* visible, int64_t rows) {
  const uint64_t from_first = any >> range_of(any).begin;
  return (from_first & (from_first + 1)) == 0 &&
         std::all_of(visible, visible + rows, [&](uint64_t seen) { return seen == any; });
}

}  // namespace

Tile::SeenBlock Tile::look(int64_t block, const ScoreBlock& w) const {
  // Most blocks: no token needs a look of its own.
  if (!item_.bias.data && keys_.all_see(block)) {
    std::fill(w.visible, w.visible + rows_, ~uint64_t{0});
    return {kv_.at(block), {0, key_block}, true};
  }
  uint64_t any = 0;
  int64_t r = 0;
  for (int64_t t = t_begin_; t < t_end_; ++t) {
    const VisibleKeys keys = visible_keys(options_.mask, shape_.q_start + t, shape_.keys);
    const uint64_t seen =
        block_bits(keys, block * key_block) & shape_.selected_keys(t, kv_head_, block);
    for (int64_t h = 0; h < heads_; ++h, ++r) {
      w.visible[r] = seen;
      if (item_.bias.data && seen != 0) {
        float* bias = w.bias + r * key_block;
        load_bias(r, block, bias);
        w.visible[r] &= kernels_.above_minus_infinity(bias);
      }
      any |= w.visible[r];
    }
  }
  if (any == 0) return {kv_.at(block), {}, true};
  return {kv_.at(block), range_of(any), alike(any, w.visible, rows_)};
}

/// out [key_block]: a row's bias for the keys of a block, 0 behind the last one.
void Tile::load_bias(int64_t row, int64_t block, float* out) const {
  const AnyView<3>& x = item_.bias;
  // An axis of size 1 stands for all: it is never stepped along.
  const auto step = [&](size_t axis) { return x.shape[axis] == 1 ? 0 : x.strides[axis]; };
  const int64_t first = block * key_block;
  const int64_t count = std::min(key_block, shape_.keys.len - first);
  const int64_t base = head(row) * step(0) + token(row) * step(1) + first * step(2);
  kernels::load_row(kernels_, x.data, x.dtype, base, step(2), count, out);
  std::fill(out + count, out + key_block, 0.0f);
}

void Tile::cap_scores(const ScoreBlock& w) const {
  if (options_.softcap <= 0) return;
  for (int64_t r = 0; r < rows_; ++r) {
    kernels_.softcap(w.scores + r * w.row, key_block, options_.softcap);
  }
}

void Tile::add_to_scores(int64_t block, const ScoreBlock& w) const {
  if (options_.alibi.empty() && !item_.bias.data) return;
  for (int64_t r = 0; r < rows_; ++r) {
    float* scores = w.scores + r * w.row;
    if (!options_.alibi.empty()) {
      const int64_t ahead = shape_.q_start + token(r) - block * key_block;
      kernels_.subtract_distance(scores, static_cast<float>(ahead),
                                 options_.alibi[static_cast<size_t>(head(r))]);
    }
    if (item_.bias.data) kernels_.add(scores, w.bias + r * key_block, key_block);
  }
}

}  // namespace gqa
