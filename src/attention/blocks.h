// Key blocks as the kernels want them, from wherever keys and values lie.
#pragma once

#include <cstdint>

#include "gqa/attention.h"
#include "kernels/kernels.h"

namespace gqa {

/// Strided keys are transposed this many at a time, so that stores fill whole cache lines.
inline constexpr int64_t transpose_rows = 16;

/// Floats of scratch that load_keys() needs: the block, and rows on their way into it.
constexpr int64_t keys_scratch(int64_t head_dim) {
  return (kernels::key_block + transpose_rows) * head_dim;
}

/// Keys [begin, end) of one block and KV head as f32 [head_dim][key_block], into `scratch`
/// [keys_scratch] or in place where the cache holds just that. The others are without meaning.
const float* load_keys(const kernels::Table& kernels, const Kv& kv, int64_t kv_head, int64_t block,
                       kernels::Range keys, int64_t head_dim, float* scratch);

/// Values [begin, end) of one block and KV head as f32 rows, row_stride apart with zeros behind
/// v_head_dim: into `scratch` [key_block][row_stride], or in place where the cache holds just that.
/// Other rows are without meaning.
const float* load_values(const kernels::Table& kernels, const Kv& kv, int64_t kv_head,
                         int64_t block, kernels::Range keys, int64_t v_head_dim, int64_t stride,
                         float* scratch);

}  // namespace gqa
