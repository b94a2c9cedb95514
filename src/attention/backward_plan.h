// How the backward of a batch is cut into units of work.
#pragma once

#include <cstdint>
#include <span>

#include "attention/plan.h"
#include "gqa/attention_backward.h"

namespace gqa {

/// A checked batch.
struct BackwardJob {
  std::span<const AttendBackwardItem> batch;
  std::span<const ItemShape> shapes;
  const AttendOptions& options;
};

/// One KV head of one item. Its rows are (token, head of the group) pairs, heads innermost; a tile
/// is those of up to `tile_tokens` tokens.
struct BackwardHead {
  int32_t item = 0;
  int32_t kv_head = 0;
  int64_t tile_tokens = 0;
  int64_t tiles = 0;
  int64_t first_row = 0;   ///< of all heads' rows
  int64_t first_tile = 0;  ///< of all heads' tiles
  int64_t dq = -1;         ///< where sums of dq are, in floats; -1: in dq itself
  int64_t dbias = -1;      ///< likewise; all heads of an item share it
};

/// Chunks [chunk_begin, chunk_end) of heads [head_begin, head_end) of the batch, chunk by chunk.
/// One unit alone computes dk and dv of a chunk and head, over all rows. Units come in ascending
/// order of chunks.
struct BackwardUnit {
  int64_t head_begin = 0, head_end = 0;
  int64_t chunk_begin = 0, chunk_end = 0;
};

/// Totals: what to allocate.
struct BackwardSize {
  int64_t heads = 0;
  int64_t units = 0;
  int64_t tiles = 0;
  int64_t rows = 0;
  int64_t dq_floats = 0;
  int64_t dbias_floats = 0;
  int64_t max_rows = 0;  ///< of a tile
  int64_t max_keys = 0;  ///< of a chunk
  int64_t max_head_dim = 0;
  int64_t max_v_head_dim = 0;
  bool pairs = false;        ///< some item takes_pairs()
  double multiply_adds = 0;  ///< at most
};

/// Writes heads, as many as all items have KV heads.
BackwardSize plan_heads(const kernels::Table& kernels, const BackwardJob& job, BackwardHead* heads);
/// Counts units and, where the pointer is not null, writes them.
int64_t plan_units(const BackwardJob& job, BackwardUnit* units);

}  // namespace gqa
