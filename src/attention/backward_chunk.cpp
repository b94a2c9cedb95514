#include "attention/backward_chunk.h"

#include <algorithm>

#include "gqa/attention_backward.h"
#include "kernels/load_row.h"

namespace gqa {
namespace {

using kernels::key_block;
using kernels::Range;

/// out [columns][key_block], columns [s0, s0 + transpose_rows) of it, from as many rows.
void transpose(const float* rows, int64_t stride, int64_t columns, int64_t s0, float* out) {
  for (int64_t d = 0; d < columns; ++d) {
    for (int64_t s = 0; s < transpose_rows; ++s) {
      out[d * key_block + s0 + s] = rows[s * stride + d];
    }
  }
}

}  // namespace

BackwardChunk::BackwardChunk(const kernels::Table& kernels, const AttendBackwardItem& item,
                             const ItemShape& shape, int64_t kv_head, int64_t chunk,
                             const ChunkMemory& memory)
    : kernels_(kernels),
      item_(item),
      kv_(std::get<StridedKv>(item.forward.kv)),
      shape_(shape),
      kv_head_(kv_head),
      first_block_(chunk * chunk_blocks),
      k_stride_(row_stride(shape.head_dim)),
      v_stride_(row_stride(shape.v_head_dim)),
      memory_(memory) {}

Range BackwardChunk::keys(int64_t i) const {
  const int64_t first = (first_block_ + i) * key_block;
  const auto in_block = [&](int64_t s) {
    return static_cast<int32_t>(std::clamp<int64_t>(s - first, 0, key_block));
  };
  return {in_block(shape_.keys.first), in_block(shape_.keys.len)};
}

ChunkBlock BackwardChunk::block(int64_t block) {
  const int64_t i = block - first_block_;
  if (!loaded_[static_cast<size_t>(i)]) load(i);
  return {memory_.k + i * key_block * k_stride_,
          memory_.k_columns + i * key_block * shape_.head_dim,
          memory_.v_columns + i * key_block * shape_.v_head_dim,
          memory_.dk + i * key_block * k_stride_,
          memory_.dv + i * key_block * v_stride_,
          odd_keys_[static_cast<size_t>(i)]};
}

void BackwardChunk::load(int64_t i) {
  loaded_[static_cast<size_t>(i)] = true;
  const int64_t first = (first_block_ + i) * key_block;
  const Range have = keys(i);
  const auto read = [&](const AnyView<4>& x, int64_t s, int64_t stride, float* row) {
    const bool is_key = s >= have.begin && s < have.end;
    if (is_key) {
      const int64_t begin = paged_row(x, kv_.pages, first + s, kv_head_);
      kernels::load_row(kernels_, x.data, x.dtype, begin, x.strides[3], x.shape[3], row);
    }
    std::fill(row + (is_key ? x.shape[3] : 0), row + stride, 0.0f);
  };
  float* const k = memory_.k + i * key_block * k_stride_;
  float* const k_columns = memory_.k_columns + i * key_block * shape_.head_dim;
  float* const v_columns = memory_.v_columns + i * key_block * shape_.v_head_dim;
  for (int64_t s0 = 0; s0 < key_block; s0 += transpose_rows) {
    for (int64_t s = 0; s < transpose_rows; ++s) {
      read(kv_.k, s0 + s, k_stride_, k + (s0 + s) * k_stride_);
      read(kv_.v, s0 + s, v_stride_, memory_.rows + s * v_stride_);
    }
    transpose(k + s0 * k_stride_, k_stride_, shape_.head_dim, s0, k_columns);
    transpose(memory_.rows, v_stride_, shape_.v_head_dim, s0, v_columns);
  }
  for (int64_t s = 0; s < key_block; ++s) {
    float* const row = k + s * k_stride_;
    if (kernels_.all_finite(row, k_stride_)) continue;
    odd_keys_[static_cast<size_t>(i)] |= uint64_t{1} << s;
    std::fill(row, row + k_stride_, 0.0f);
  }
  std::fill_n(memory_.dk + i * key_block * k_stride_, key_block * k_stride_, 0.0f);
  std::fill_n(memory_.dv + i * key_block * v_stride_, key_block * v_stride_, 0.0f);
}

void BackwardChunk::write() const {
  if (item_.dk.data) write_rows(item_.dk, memory_.dk, k_stride_);
  if (item_.dv.data) write_rows(item_.dv, memory_.dv, v_stride_);
}

void BackwardChunk::write_rows(const AnyMutView<4>& to, float* rows, int64_t stride) const {
  for (int64_t i = 0; i < chunk_blocks; ++i) {
    const Range have = keys(i);
    for (int64_t s = have.begin; s < have.end; ++s) {
      float* const row = rows + (i * key_block + s) * stride;
      if (!loaded_[static_cast<size_t>(i)]) std::fill(row, row + stride, 0.0f);
      const int64_t begin = paged_row(to, kv_.pages, (first_block_ + i) * key_block + s, kv_head_);
      kernels::store_row(kernels_, row, to.shape[3], to.data, to.dtype, begin, to.strides[3]);
    }
  }
}

}  // namespace gqa
