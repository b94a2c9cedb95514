// The shape of a problem, once it has been checked.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "core/checked.h"
#include "gqa/attention.h"
#include "kernels/kernels.h"

namespace gqa {

struct ItemShape {
  int64_t q_len = 0, q_heads = 0, kv_heads = 0, head_dim = 0, v_head_dim = 0;
  int64_t q_start = 0;
  KvDType kv_dtype = KvDType::f32;  ///< of a cache; arrays are decoded to f32 first
  SequenceKeys keys;
  std::span<const int32_t> group_offsets;
  KeySelection selected = {};

  /// Those keys of block `block` that token t may see in KV head `kv_head`, if the mask lets it.
  uint64_t selected_keys(int64_t t, int64_t kv_head, int64_t block) const {
    if (!selected.words) return ~uint64_t{0};
    return selected.words[t * selected.token_stride + kv_head * selected.head_stride + block];
  }

  /// Query heads [first_head(g), first_head(g + 1)) read KV head g.
  int64_t first_head(int64_t kv_head) const {
    return group_offsets.empty() ? q_heads / kv_heads * kv_head
                                 : group_offsets[static_cast<size_t>(kv_head)];
  }
  int64_t heads(int64_t kv_head) const { return first_head(kv_head + 1) - first_head(kv_head); }
};

/// What products of queries and keys are multiplied by.
inline float score_scale(const AttendOptions& options, const ItemShape& shape) {
  return options.scale.value_or(1.0f / std::sqrt(static_cast<float>(shape.head_dim)));
}

/// Floats from one row of values to the next, in accumulators and decoded blocks.
constexpr int64_t row_stride(int64_t v_head_dim) {
  return round_up(v_head_dim, kernels::row_padding);
}

/// Floats of a partial result: states [rows], then accumulators [rows][row_stride].
constexpr int64_t partial_size(int64_t rows, int64_t v_head_dim) {
  return round_up(2 * rows, kernels::row_padding) + rows * row_stride(v_head_dim);
}

}  // namespace gqa
