#include "attention/blocks.h"

#include <algorithm>

#include "kernels/load_row.h"

namespace gqa {
namespace {

using kernels::key_block;
using kernels::Range;

/// Copies [token s, head, :] of a paged strided array as f32.
void read_row(const kernels::Table& kernels, const AnyView<4>& x, std::span<const int32_t> pages,
              int64_t s, int64_t head, float* out) {
  kernels::load_row(kernels, x.data, x.dtype, paged_row(x, pages, s, head), x.strides[3],
                    x.shape[3], out);
}

void load_strided_keys(const kernels::Table& kernels, const StridedKv& kv, int64_t kv_head,
                       int64_t block, Range keys, float* out) {
  const int64_t head_dim = kv.k.shape[3];
  float* rows = out + head_dim * key_block;
  for (int64_t s0 = 0; s0 < key_block; s0 += transpose_rows) {
    for (int64_t s = 0; s < transpose_rows; ++s) {
      float* row = rows + s * head_dim;
      if (s0 + s >= keys.begin && s0 + s < keys.end) {
        read_row(kernels, kv.k, kv.pages, block * key_block + s0 + s, kv_head, row);
      } else {
        std::fill(row, row + head_dim, 0.0f);
      }
    }
    for (int64_t d = 0; d < head_dim; ++d) {
      for (int64_t s = 0; s < transpose_rows; ++s) {
        out[d * key_block + s0 + s] = rows[s * head_dim + d];
      }
    }
  }
}

}  // namespace

KvBlocks::KvBlocks(const kernels::Table& kernels, const Kv& kv, int64_t kv_head)
    : kernels_(kernels), kv_head_(kv_head), strided_(std::get_if<StridedKv>(&kv)) {
  if (strided_) return;
  const detail::KvLayer& layer = std::get<PackedKv>(kv).layer();
  layer_ = &layer;
  type_ = layer.dtype;
  takes_stored_ = kernels.takes_stored(type_);
  scale_bytes_ = layer.scale_bytes();
  const auto matrix = [&](int64_t at, int64_t bytes, int64_t depth, int64_t columns,
                          const WordOrder& order) -> Matrix {
    const int64_t padded = row_stride(columns);
    return {.at = at,
            .bytes = bytes,
            .depth = depth,
            .columns = columns,
            .padded = padded,
            .order = order,
            .unpacked = kernels.panels ? WordOrder::panels(KvDType::f32, depth, padded)
                                       : WordOrder::rows(padded)};
  };
  keys_ = matrix(0, layer.key_bytes(), layer.head_dim, key_block, layer.key_order());
  values_ = matrix(layer.key_bytes(), layer.value_bytes(), key_block, layer.v_head_dim,
                   layer.value_order());
}

Operand KvBlocks::strided_keys(int64_t block, Range keys, float* scratch) const {
  load_strided_keys(kernels_, *strided_, kv_head_, block, keys, scratch);
  return {{scratch, KvDType::f32, WordOrder::rows(key_block)}, nullptr, key_block};
}

Operand KvBlocks::strided_values(int64_t block, Range keys, float* scratch) const {
  const int64_t v_head_dim = strided_->v.shape[3];
  const int64_t stride = row_stride(v_head_dim);
  for (int64_t s = keys.begin; s < keys.end; ++s) {
    float* row = scratch + s * stride;
    read_row(kernels_, strided_->v, strided_->pages, block * key_block + s, kv_head_, row);
    std::fill(row + v_head_dim, row + stride, 0.0f);
  }
  return {{scratch, KvDType::f32, WordOrder::rows(stride)}, nullptr, stride};
}

}  // namespace gqa
