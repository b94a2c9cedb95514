#include "attention/backward_plan.h"

#include <algorithm>

#include "attention/backward_bias.h"
#include "attention/backward_pairs.h"
#include "core/fail.h"

namespace gqa {
namespace {

/// Rows of a tile: queries, gradients of outputs and of queries, and what belongs to a block of 64
/// keys, stay in a second-level cache of 1 MiB while the chunk's keys pass by.
constexpr int64_t tile_rows = 192;

int64_t counted(std::optional<int64_t> n) {
  if (!n) fail(ErrorKind::resources, "attend_backward: the batch is too large to be counted");
  return *n;
}

int64_t chunks_of(const ItemShape& shape) { return ceil_div(shape.keys.len, chunk_keys); }

/// dq is a place to sum up in.
bool sums_in_place(const AnyMutView<3>& dq) { return dq.dtype == DType::f32 && dq.strides[2] == 1; }

}  // namespace

BackwardSize plan_heads(const kernels::Table& kernels, const BackwardJob& job,
                        BackwardHead* heads) {
  BackwardSize size;
  for (size_t i = 0; i < job.shapes.size(); ++i) {
    const ItemShape& shape = job.shapes[i];
    const AttendBackwardItem& item = job.batch[i];
    const int64_t dbias = bias_scratch(item.dbias, shape);
    for (int32_t g = 0; g < shape.kv_heads; ++g) {
      BackwardHead& head = heads[size.heads++];
      head = {.item = static_cast<int32_t>(i), .kv_head = g};
      head.tile_tokens = std::max<int64_t>(1, tile_rows / shape.heads(g));
      head.tiles = ceil_div(shape.q_len, head.tile_tokens);
      head.first_row = size.rows;
      head.first_tile = size.tiles;
      const int64_t rows = shape.q_len * shape.heads(g);
      if (item.dq.data && chunks_of(shape) > 1 && !sums_in_place(item.dq)) {
        head.dq = size.dq_floats;
        size.dq_floats = counted(checked_add(size.dq_floats, rows * row_stride(shape.head_dim)));
      }
      if (dbias > 0) head.dbias = size.dbias_floats;
      size.rows = counted(checked_add(size.rows, rows));
      size.tiles += head.tiles;
      size.max_rows =
          std::max(size.max_rows, std::min(head.tile_tokens, shape.q_len) * shape.heads(g));
    }
    size.dbias_floats = counted(checked_add(size.dbias_floats, dbias));
    size.max_keys =
        std::max(size.max_keys, std::min(chunk_keys, round_up(shape.keys.len, kernels::key_block)));
    size.pairs = size.pairs || takes_pairs(kernels, item);
    size.max_head_dim = std::max(size.max_head_dim, shape.head_dim);
    size.max_v_head_dim = std::max(size.max_v_head_dim, shape.v_head_dim);
    size.multiply_adds += static_cast<double>(shape.q_len) * static_cast<double>(shape.q_heads) *
                          static_cast<double>(shape.keys.len) *
                          static_cast<double>(3 * shape.head_dim + 2 * shape.v_head_dim);
  }
  return size;
}

int64_t plan_units(const BackwardJob& job, BackwardUnit* units) {
  int64_t count = 0;
  const auto put = [&](const BackwardUnit& unit) {
    if (units) units[count] = unit;
    ++count;
  };
  int64_t most = 0;
  for (const ItemShape& shape : job.shapes) most = std::max(most, chunks_of(shape));
  // Chunk by chunk, so that a unit that waits for an earlier chunk's dq rarely has to; under a
  // causal mask early chunks are the longest, too.
  for (int64_t c = 0; c < most; ++c) {
    int64_t first = 0;
    for (size_t i = 0; i < job.shapes.size(); ++i) {
      const ItemShape& shape = job.shapes[i];
      const int64_t end = first + shape.kv_heads;
      const BiasOrder order = bias_order(job.batch[i].dbias, shape);
      const int64_t begin_chunk = shape.keys.first / chunk_keys;
      const int64_t end_chunk = order.one_for_keys ? chunks_of(shape) : c + 1;
      const bool starts = order.one_for_keys ? c == begin_chunk : c >= begin_chunk;
      if (starts && c < chunks_of(shape)) {
        const int64_t step = order.one_for_heads ? shape.kv_heads : 1;
        for (int64_t h = first; h < end; h += step) put({h, h + step, c, end_chunk});
      }
      first = end;
    }
  }
  return count;
}

}  // namespace gqa
