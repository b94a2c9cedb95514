#include "attention/backward_paired_chunk.h"

#include <algorithm>

namespace gqa {

using kernels::key_block;

PairedChunk::PairedChunk(const kernels::Table& kernels, const ChunkKeys& keys,
                         const ItemShape& shape, const PairedKeys& memory)
    : kernels_(kernels),
      keys_(keys),
      k_row_(pair_stride(shape.head_dim)),
      v_row_(pair_stride(shape.v_head_dim)),
      k_stride_(row_stride(shape.head_dim)),
      v_stride_(row_stride(shape.v_head_dim)),
      memory_(memory) {}

PairedBlock PairedChunk::block(int64_t i) {
  if (!loaded_[static_cast<size_t>(i)]) load(i);
  return at(i);
}

PairedBlock PairedChunk::at(int64_t i) const {
  const int64_t first = i * key_block;
  return {memory_.k_by_dim + first * k_row_ / 2,    memory_.v_by_dim + first * v_row_ / 2,
          memory_.k_by_key + first / 2 * k_stride_, memory_.dk + first * k_stride_,
          memory_.dv + first * v_stride_,           finite_[static_cast<size_t>(i)]};
}

void PairedChunk::load(int64_t i) {
  loaded_[static_cast<size_t>(i)] = true;
  const PairedBlock b = at(i);
  const StridedKv& kv = keys_.kv();
  const bool k_finite = load_by_dim(kv.k, i, b.k_by_dim, b.k_by_key);
  const bool v_finite = load_by_dim(kv.v, i, b.v_by_dim, nullptr);
  finite_[static_cast<size_t>(i)] = k_finite && v_finite;
  std::fill_n(b.dk, key_block * k_stride_, 0.0f);
  std::fill_n(b.dv, key_block * v_stride_, 0.0f);
}

/// Whether all is finite. by_key: null if not wanted.
bool PairedChunk::load_by_dim(const AnyView<4>& x, int64_t i, uint32_t* by_dim,
                              uint32_t* by_key) const {
  const int64_t stride = row_stride(x.shape[3]);
  const int64_t row = pair_stride(x.shape[3]);
  bool finite = true;
  for (int64_t s = 0; s < key_block; s += 2) {
    for (int64_t j = 0; j < 2; ++j) {
      float* const from = memory_.two_rows + j * stride;
      keys_.read(x, i, s + j, stride, from);
      round_row(kernels_, from, x.shape[3], memory_.rows + (s + j) * row);
    }
    finite = finite && kernels_.all_finite(memory_.two_rows, 2 * stride);
    if (by_key) kernels_.pair_rows(memory_.two_rows, stride, 2, stride, by_key + s / 2 * stride);
  }
  kernels_.transpose(reinterpret_cast<const uint32_t*>(memory_.rows), key_block, row / 2, by_dim);
  return finite;
}

void PairedChunk::add_to(int64_t i, float scale, float* dk, float* dv) const {
  if (!loaded_[static_cast<size_t>(i)]) return;
  const PairedBlock b = at(i);
  add_rows(b.dk, k_stride_, scale, dk);
  add_rows(b.dv, v_stride_, 1.0f, dv);
}

/// to [key_block][stride] += scale * columns [stride][key_block].
void PairedChunk::add_rows(const float* columns, int64_t stride, float scale, float* to) const {
  kernels_.transpose(reinterpret_cast<const uint32_t*>(columns), stride, key_block,
                     reinterpret_cast<uint32_t*>(memory_.sums));
  for (int64_t j = 0; j < key_block * stride; ++j) to[j] += scale * memory_.sums[j];
}

}  // namespace gqa
