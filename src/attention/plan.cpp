#include "attention/plan.h"

#include <algorithm>

namespace gqa {
namespace {

/// Rows of a tile: enough to make decoding a key block worth while, few enough that scores and
/// accumulators stay in the second-level cache.
constexpr int64_t tile_rows = 96;
/// Partial results of a call take at most this many floats; what goes beyond is not split.
constexpr int64_t partial_limit = int64_t{64} << 20;

class Planner {
 public:
  Planner(const Mask& mask, Unit* units, MergeJob* merges)
      : mask_(mask), units_(units), merges_(merges) {}

  void add(int32_t item, const ItemShape& shape) {
    const int64_t tile = std::max<int64_t>(1, tile_rows / shape.group());
    const int64_t tiles = ceil_div(shape.q_len, tile);
    for (int32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      // Under a causal mask the last tile is the longest: start with it.
      for (int64_t i = tiles; i-- > 0;) {
        const int64_t t_begin = i * tile;
        add_tile(item, shape, kv_head, t_begin, std::min(shape.q_len, t_begin + tile), tiles == 1);
      }
    }
    size_.max_head_dim = std::max(size_.max_head_dim, shape.head_dim);
    size_.max_v_head_dim = std::max(size_.max_v_head_dim, shape.v_head_dim);
  }

  const PlanSize& size() const { return size_; }

 private:
  void add_tile(int32_t item, const ItemShape& s, int32_t kv_head, int64_t t_begin, int64_t t_end,
                bool only_tile) {
    const KeyRange first = visible_keys(mask_, s.q_start + t_begin, s.first_key, s.kv_len);
    const KeyRange last = visible_keys(mask_, s.q_start + t_end - 1, s.first_key, s.kv_len);
    const int64_t chunk_begin = first.begin / chunk_keys;
    const int64_t chunk_end = std::max(chunk_begin, ceil_div(last.end, chunk_keys));
    const int64_t rows = (t_end - t_begin) * s.group();
    const int64_t chunks = chunk_end - chunk_begin;
    size_.max_rows = std::max(size_.max_rows, rows);
    size_.multiply_adds += static_cast<double>(rows) * static_cast<double>(last.end - first.begin) *
                           static_cast<double>(s.head_dim + s.v_head_dim);
    Unit unit{item, kv_head, t_begin, t_end, chunk_begin, chunk_end, -1};
    const int64_t floats = partial_size(rows, s.v_head_dim);
    if (!only_tile || chunks < 2 || size_.partial_floats + chunks * floats > partial_limit) {
      put(unit);
      return;
    }
    if (merges_)
      merges_[size_.merges] = {item, kv_head, t_begin, t_end, size_.partial_floats, chunks};
    ++size_.merges;
    for (int64_t c = chunk_begin; c < chunk_end; ++c) {
      unit.chunk_begin = c;
      unit.chunk_end = c + 1;
      unit.partial = size_.partial_floats;
      size_.partial_floats += floats;
      put(unit);
    }
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
