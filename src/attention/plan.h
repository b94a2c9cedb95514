// How a batch is cut into units of work: a pure function of shapes and mask.
#pragma once

#include <cstdint>
#include <span>

#include "attention/shape.h"

namespace gqa {

/// Keys of a chunk: chunks begin at multiples of this position. Every row works through its keys
/// chunk by chunk, each from a fresh state, and merges the partial results in ascending order; so
/// it makes no difference to the bits whether one thread does all chunks or several do one each.
inline constexpr int64_t chunk_keys = 1024;
inline constexpr int64_t chunk_blocks = chunk_keys / kernels::key_block;
static_assert(chunk_blocks % kernels::stretch_blocks == 0);

/// Query tokens [t_begin, t_end) of one item, all heads of one group, against those keys of chunks
/// [chunk_begin, chunk_end) that some of them see. Rows are (token, head) pairs, heads innermost.
struct Unit {
  int32_t item = 0;
  int32_t kv_head = 0;
  int64_t t_begin = 0, t_end = 0;
  int64_t chunk_begin = 0, chunk_end = 0;
  /// Where a unit that is one chunk of several leaves its result, in floats; -1: it finishes its
  /// rows.
  int64_t partial = -1;
};

/// Partial results of the chunks of one group's rows: `count` of them, `partial_size` apart.
struct MergeJob {
  int32_t item = 0;
  int32_t kv_head = 0;
  int64_t t_begin = 0, t_end = 0;
  int64_t first = 0, count = 0;
};

/// Totals of a plan: what to allocate.
struct PlanSize {
  int64_t units = 0;
  int64_t merges = 0;
  int64_t partial_floats = 0;
  int64_t max_rows = 0;  ///< of a unit
  int64_t max_head_dim = 0;
  int64_t max_v_head_dim = 0;
  double scores = 0;         ///< (row, key) pairs of the key blocks that are touched
  double multiply_adds = 0;  ///< of them
};

/// Counts, and, where the pointers are not null, writes units and merges.
PlanSize plan(std::span<const ItemShape> shapes, const Mask& mask, Unit* units, MergeJob* merges);

}  // namespace gqa
