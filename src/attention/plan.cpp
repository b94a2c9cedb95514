#include "attention/plan.h"

#include <algorithm>

#include "attention/visible.h"

namespace gqa {
namespace {

/// Rows of a tile: enough to make decoding a key block worth while, few enough that scores and
/// accumulators stay in the second-level cache.
constexpr int64_t tile_rows = 192;
/// Partial results of a call take at most this many floats; what goes beyond is not split.
constexpr int64_t partial_limit = int64_t{64} << 20;

class Planner {
 public:
  Planner(const Mask& mask, Unit* units, MergeJob* merges)
      : mask_(mask), units_(units), merges_(merges) {}

  void add(int32_t item, const ItemShape& shape) {
    for (int32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      const int64_t tile = std::max<int64_t>(1, tile_rows / shape.heads(kv_head));
      const int64_t tiles = ceil_div(shape.q_len, tile);
      // Under a causal mask the last tile is the longest: start with it.
      for (int64_t i = tiles; i-- > 0;) {
        const int64_t t_begin = i * tile;
        const int64_t t_end = std::min(shape.q_len, t_begin + tile);
        add_tile({item, kv_head, t_begin, t_end}, shape, tiles == 1);
      }
    }
    size_.max_head_dim = std::max(size_.max_head_dim, shape.head_dim);
    size_.max_v_head_dim = std::max(size_.max_v_head_dim, shape.v_head_dim);
  }

  const PlanSize& size() const { return size_; }

 private:
  void add_tile(Unit unit, const ItemShape& shape, bool only_tile) {
    const TileKeys keys(mask_, shape, unit.kv_head, unit.t_begin, unit.t_end);
    const int64_t rows = (unit.t_end - unit.t_begin) * shape.heads(unit.kv_head);
    size_.max_rows = std::max(size_.max_rows, rows);
    count_work(keys, shape, rows);
    const KeyRange all = keys.cover(chunk_keys);
    unit.chunk_begin = all.begin;
    unit.chunk_end = all.end;
    const auto seen = [&](int64_t c) {
      return keys.touch(c * chunk_blocks, (c + 1) * chunk_blocks);
    };
    int64_t chunks = 0;
    for (int64_t c = all.begin; c < all.end; ++c) chunks += seen(c);
    const int64_t floats = partial_size(rows, shape.v_head_dim);
    if (!only_tile || chunks < 2 || size_.partial_floats + chunks * floats > partial_limit) {
      put(unit);
      return;
    }
    if (merges_) {
      merges_[size_.merges] = {unit.item,  unit.kv_head,         unit.t_begin,
                               unit.t_end, size_.partial_floats, chunks};
    }
    ++size_.merges;
    for (int64_t c = all.begin; c < all.end; ++c) {
      if (!seen(c)) continue;
      unit.chunk_begin = c;
      unit.chunk_end = c + 1;
      unit.partial = size_.partial_floats;
      size_.partial_floats += floats;
      put(unit);
    }
  }

  void count_work(const TileKeys& keys, const ItemShape& shape, int64_t rows) {
    using kernels::key_block;
    double scores = 0;
    for (const KeyRange& run : keys.runs()) {
      if (run.empty()) continue;
      const int64_t begin = run.begin / key_block;
      int64_t blocks = ceil_div(run.end, key_block) - begin;
      if (shape.selected.words) blocks = keys.count(begin, begin + blocks);
      scores += static_cast<double>(rows) * static_cast<double>(blocks * key_block);
    }
    size_.scores += scores;
    size_.multiply_adds += scores * static_cast<double>(shape.head_dim + shape.v_head_dim);
  }

  void put(const Unit& unit) {
    if (units_) units_[size_.units] = unit;
    ++size_.units;
  }

  const Mask& mask_;
  Unit* units_;
  MergeJob* merges_;
  PlanSize size_;
};

}  // namespace

PlanSize plan(std::span<const ItemShape> shapes, const Mask& mask, Unit* units, MergeJob* merges) {
  Planner planner(mask, units, merges);
  for (size_t i = 0; i < shapes.size(); ++i) planner.add(static_cast<int32_t>(i), shapes[i]);
  return planner.size();
}

}  // namespace gqa
