// The memory that one thread works in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "attention/blocks.h"
#include "attention/plan.h"
#include "kernels/kernels.h"

namespace gqa {

/// Rows with their states and accumulators [rows][row_stride].
struct Rows {
  kernels::RowState* states;
  float* acc;

  void reset(int64_t rows, int64_t stride) const {
    constexpr float none = -std::numeric_limits<float>::infinity();
    std::fill(states, states + rows, kernels::RowState{none, 0.0f});
    std::fill(acc, acc + rows * stride, 0.0f);
  }
};

/// A partial result in memory, as partial_size() lays it out.
inline Rows rows_at(float* memory, int64_t rows) {
  return {reinterpret_cast<kernels::RowState*>(memory),
          memory + round_up(2 * rows, kernels::row_padding)};
}

/// The scores of a tile's rows and one block of keys.
struct ScoreBlock {
  float* scores;  ///< [rows][key_block], rows `row` apart
  int64_t row;
  float* bias;        ///< [rows][key_block]
  uint64_t* visible;  ///< [rows]: a bit for each key of the block
};

/// All sizes are those of the largest unit, and of stretches of most blocks: scores are
/// [rows][blocks][key_block], and what is visible is [blocks][rows].
struct Workspace : ScoreBlock {
  float* q;            ///< [head_dim]: a query on its way to `queries`
  std::byte* queries;  ///< [rows], scaled, prepared for the cache
  float* k;            ///< [keys_scratch]
  float* v;            ///< [stretch_blocks][key_block][row_stride]
  Rows part;
  Rows total;

  /// Block i of a stretch of so many blocks, of a unit of so many rows.
  ScoreBlock block(int64_t i, int64_t blocks, int64_t rows) const {
    return {scores + i * kernels::key_block, blocks * kernels::key_block, bias, visible + i * rows};
  }

  /// query_bytes: of the largest prepared query.
  static int64_t floats(const PlanSize& s, int64_t query_bytes) {
    return lay_out(nullptr, s, query_bytes, nullptr);
  }
  Workspace(float* memory, const PlanSize& s, int64_t query_bytes) {
    lay_out(memory, s, query_bytes, this);
  }

 private:
  static int64_t lay_out(float* memory, const PlanSize& s, int64_t query_bytes, Workspace* w) {
    int64_t used = 0;
    const auto take = [&](int64_t n) {
      float* p = memory ? memory + used : nullptr;
      used += round_up(n, kernels::row_padding);
      return p;
    };
    float* q = take(s.max_head_dim);
    float* queries = take(ceil_div(s.max_rows * query_bytes, static_cast<int64_t>(sizeof(float))));
    float* k = take(keys_scratch(s.max_head_dim));
    float* v = take(kernels::stretch_blocks * kernels::key_block * row_stride(s.max_v_head_dim));
    float* scores = take(s.max_rows * kernels::stretch_keys);
    float* bias = take(s.max_rows * kernels::key_block);
    float* visible = take(kernels::stretch_blocks * s.max_rows * 2);
    float* part = take(partial_size(s.max_rows, s.max_v_head_dim));
    float* total = take(partial_size(s.max_rows, s.max_v_head_dim));
    if (w) {
      w->q = q;
      w->queries = reinterpret_cast<std::byte*>(queries);
      w->k = k;
      w->v = v;
      w->scores = scores;
      w->row = kernels::key_block;
      w->bias = bias;
      w->visible = reinterpret_cast<uint64_t*>(visible);
      w->part = rows_at(part, s.max_rows);
      w->total = rows_at(total, s.max_rows);
    }
    return used;
  }
};

}  // namespace gqa
