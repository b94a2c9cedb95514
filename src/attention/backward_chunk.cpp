#include "attention/backward_chunk.h"

#include <algorithm>

namespace gqa {
namespace {

using kernels::key_block;

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
                             const ItemShape& shape, int64_t kv_head, int64_t chunk, float scale,
                             const ChunkMemory& memory)
    : kernels_(kernels),
      item_(item),
      shape_(shape),
      k_stride_(row_stride(shape.head_dim)),
      v_stride_(row_stride(shape.v_head_dim)),
      scale_(scale),
      memory_(memory),
      keys_(kernels, item, shape, kv_head, chunk),
      paired_(kernels, keys_, shape, memory.paired) {}

ChunkBlock BackwardChunk::block(int64_t block) {
  const int64_t i = block - keys_.first_block();
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
  float* const k = memory_.k + i * key_block * k_stride_;
  float* const k_columns = memory_.k_columns + i * key_block * shape_.head_dim;
  float* const v_columns = memory_.v_columns + i * key_block * shape_.v_head_dim;
  for (int64_t s0 = 0; s0 < key_block; s0 += transpose_rows) {
    for (int64_t s = 0; s < transpose_rows; ++s) {
      keys_.read(keys_.kv().k, i, s0 + s, k_stride_, k + (s0 + s) * k_stride_);
      keys_.read(keys_.kv().v, i, s0 + s, v_stride_, memory_.rows + s * v_stride_);
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
  clear(i);
}

/// Gradients of a block.
void BackwardChunk::clear(int64_t i) {
  std::fill_n(memory_.dk + i * key_block * k_stride_, key_block * k_stride_, 0.0f);
  std::fill_n(memory_.dv + i * key_block * v_stride_, key_block * v_stride_, 0.0f);
}

void BackwardChunk::write() {
  for (int64_t i = 0; i < chunk_blocks; ++i) {
    const kernels::Range have = keys_.in_block(i);
    if (have.begin >= have.end) continue;
    if (!loaded_[static_cast<size_t>(i)]) clear(i);
    paired_.add_to(i, scale_, memory_.dk + i * key_block * k_stride_,
                   memory_.dv + i * key_block * v_stride_);
  }
  if (item_.dk.data) write_rows(item_.dk, memory_.dk, k_stride_);
  if (item_.dv.data) write_rows(item_.dv, memory_.dv, v_stride_);
}

void BackwardChunk::write_rows(const AnyMutView<4>& to, const float* rows, int64_t stride) const {
  for (int64_t i = 0; i < chunk_blocks; ++i) {
    const kernels::Range have = keys_.in_block(i);
    for (int64_t s = have.begin; s < have.end; ++s) {
      kernels::store_row(kernels_, rows + (i * key_block + s) * stride, to.shape[3], to.data,
                         to.dtype, keys_.begin_of(to, i, s), to.strides[3]);
    }
  }
}

}  // namespace gqa
