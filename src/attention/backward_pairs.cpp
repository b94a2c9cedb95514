#include "attention/backward_pairs.h"

#include <algorithm>

#include "gqa/attention_backward.h"

namespace gqa {

using kernels::key_block;

bool takes_pairs(const kernels::Table& kernels, const AttendBackwardItem& item) {
  const auto& kv = std::get<StridedKv>(item.forward.kv);
  return kernels.multiply_pairs && item.forward.q.dtype == DType::bf16 &&
         item.d_out.dtype == DType::bf16 && kv.k.dtype == DType::bf16 && kv.v.dtype == DType::bf16;
}

void round_row(const kernels::Table& kernels, const float* row, int64_t n, uint16_t* to) {
  kernels.encode(DType::bf16, row, row_stride(n), to);
  std::fill(to + row_stride(n), to + pair_stride(n), uint16_t{0});
}

PairedTile::PairedTile(const kernels::Table& kernels, const ItemShape& shape, int64_t rows,
                       const PairedRows& memory)
    : kernels_(kernels),
      head_dim_(shape.head_dim),
      v_head_dim_(shape.v_head_dim),
      rows_(rows),
      depth_(pair_stride(rows)),
      m_(memory) {}

void PairedTile::load(const float* q, const float* d_out) const {
  load_rows(q, head_dim_, m_.q, m_.q_columns);
  load_rows(d_out, v_head_dim_, m_.d_out, m_.d_out_columns);
  for (uint32_t* words : {m_.weight_words, m_.ds_words}) {
    std::fill(words + ceil_div(rows_, 2) * key_block, words + depth_ / 2 * key_block, 0u);
  }
}

void PairedTile::load_rows(const float* from, int64_t dim, uint16_t* rows,
                           uint16_t* columns) const {
  const int64_t stride = row_stride(dim);
  for (int64_t r = 0; r < rows_; ++r) {
    round_row(kernels_, from + r * stride, dim, rows + r * pair_stride(dim));
  }
  kernels_.pair_rows(from, stride, rows_, stride, m_.words);
  std::fill(m_.words + ceil_div(rows_, 2) * stride, m_.words + depth_ / 2 * stride, 0u);
  kernels_.transpose(m_.words, depth_ / 2, stride, reinterpret_cast<uint32_t*>(columns));
}

void PairedTile::score(const PairedBlock& keys, float scale, float* scores, float* dp) const {
  const auto multiply = [&](const uint16_t* rows, int64_t dim, const uint32_t* words, float factor,
                            float* to) {
    kernels_.multiply_pairs({.a = rows,
                             .a_stride = pair_stride(dim),
                             .b = words,
                             .c = to,
                             .c_stride = key_block,
                             .scale = factor,
                             .add = false,
                             .rows = rows_,
                             .depth = pair_stride(dim),
                             .columns = key_block});
  };
  multiply(m_.q, head_dim_, keys.k_by_dim, scale, scores);
  multiply(m_.d_out, v_head_dim_, keys.v_by_dim, 1.0f, dp);
}

void PairedTile::add_to_values(const float* weights, const PairedBlock& keys) const {
  kernels_.pair_rows(weights, key_block, rows_, key_block, m_.weight_words);
  add_over_rows(m_.d_out_columns, v_head_dim_, m_.weight_words, keys.dv);
}

void PairedTile::add_to_keys(const float* ds, const PairedBlock& keys) const {
  kernels_.pair_rows(ds, key_block, rows_, key_block, m_.ds_words);
  add_over_rows(m_.q_columns, head_dim_, m_.ds_words, keys.dk);
}

/// sums [dim][key_block] += columns [dim][rows] * words.
void PairedTile::add_over_rows(const uint16_t* columns, int64_t dim, const uint32_t* words,
                               float* sums) const {
  kernels_.multiply_pairs({.a = columns,
                           .a_stride = depth_,
                           .b = words,
                           .c = sums,
                           .c_stride = key_block,
                           .scale = 1.0f,
                           .add = true,
                           .rows = dim,
                           .depth = depth_,
                           .columns = key_block});
}

void PairedTile::add_to_queries(const float* ds, const PairedBlock& keys, float* dq) const {
  const int64_t stride = row_stride(head_dim_);
  kernels_.encode(DType::bf16, ds, rows_ * key_block, m_.ds);
  kernels_.multiply_pairs({.a = m_.ds,
                           .a_stride = key_block,
                           .b = keys.k_by_key,
                           .c = dq,
                           .c_stride = stride,
                           .scale = 1.0f,
                           .add = true,
                           .rows = rows_,
                           .depth = key_block,
                           .columns = stride});
}

}  // namespace gqa
