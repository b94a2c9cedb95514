#include "attention/backward_tile.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "attention/prefetch.h"
#include "kernels/load_row.h"

namespace gqa {
namespace {

using kernels::few_rows;
using kernels::key_block;
using kernels::Range;

/// Rows that a product over rows sums up before it adds: with them and their weights, a
/// first-level cache is full.
constexpr int64_t rows_at_once = 64;

int32_t narrow(int64_t n) { return static_cast<int32_t>(n); }

Tile tile_of(const kernels::Table& kernels, const BackwardJob& job, const BackwardHead& head,
             int64_t tile) {
  const auto i = static_cast<size_t>(head.item);
  const ItemShape& shape = job.shapes[i];
  const int64_t t_begin = tile * head.tile_tokens;
  const int64_t t_end = std::min(shape.q_len, t_begin + head.tile_tokens);
  return {kernels, job.batch[i].forward, shape, job.options, head.kv_head, t_begin, t_end};
}

}  // namespace

BackwardTile::BackwardTile(const kernels::Table& kernels, const BackwardJob& job,
                           const BackwardHead& head, int64_t tile, const RowTerms& terms)
    : kernels_(kernels),
      item_(job.batch[static_cast<size_t>(head.item)]),
      shape_(job.shapes[static_cast<size_t>(head.item)]),
      options_(job.options),
      tile_(tile_of(kernels, job, head, tile)),
      heads_(shape_.heads(head.kv_head)),
      first_row_(tile * head.tile_tokens * heads_),
      k_stride_(row_stride(shape_.head_dim)),
      v_stride_(row_stride(shape_.v_head_dim)),
      scale_(tile_.scale()),
      lse_(terms.lse + head.first_row + first_row_),
      delta_(terms.delta + head.first_row + first_row_) {}

int64_t BackwardTile::seen_before(int64_t chunk) const {
  const int64_t begin = tile_.keys().cover(chunk_keys).begin;
  while (--chunk >= begin) {
    if (sees(chunk)) return chunk;
  }
  return -1;
}

int64_t BackwardTile::seen_after(int64_t chunk) const {
  const int64_t end = tile_.keys().cover(chunk_keys).end;
  while (++chunk < end) {
    if (sees(chunk)) return chunk;
  }
  return -1;
}

void BackwardTile::load(const BackwardWorkspace& w) {
  const auto row = [&](const AnyView<3>& x, int64_t r, int64_t stride, float* to) {
    const int64_t begin = tile_.token(r) * x.strides[0] + tile_.head(r) * x.strides[1];
    kernels::load_row(kernels_, x.data, x.dtype, begin, x.strides[2], x.shape[2], to);
    std::fill(to + x.shape[2], to + stride, 0.0f);
  };
  const auto ask = [&](int64_t r) {
    if (r >= tile_.rows()) return;
    prefetch_row(item_.forward.q, tile_.token(r), tile_.head(r));
    prefetch_row(item_.d_out, tile_.token(r), tile_.head(r));
  };
  const int64_t ahead = tokens_ahead * heads_;
  for (int64_t r = 0; r < ahead; ++r) ask(r);
  for (int64_t r = 0; r < tile_.rows(); ++r) {
    ask(r + ahead);
    row(item_.forward.q, r, k_stride_, w.q + r * k_stride_);
    row(item_.d_out, r, v_stride_, w.d_out + r * v_stride_);
  }
  const int64_t n = tile_.rows() * k_stride_;
  paired_ = takes_pairs(kernels_, item_) && kernels_.all_finite(w.q, n) &&
            kernels_.all_finite(w.d_out, tile_.rows() * v_stride_);
  if (paired_) pairs(w).load(w.q, w.d_out);
  for (int64_t i = 0; i < n; ++i) w.q[i] *= scale_;
}

void BackwardTile::work(int64_t chunk, BackwardChunk& keys, const BiasSums* dbias,
                        const BackwardWorkspace& w) const {
  const FiniteRows rows{finite(w.q, k_stride_, w.finite_q),
                        finite(w.d_out, v_stride_, w.finite_d_out)};
  std::fill_n(w.dq, tile_.rows() * k_stride_, 0.0f);
  const int64_t end = (chunk + 1) * chunk_blocks;
  for (int64_t b = tile_.keys().next(chunk * chunk_blocks, end); b < end;
       b = tile_.keys().next(b + 1, end)) {
    if (look(b, w) == 0) continue;
    if (paired_) {
      const PairedBlock paired = keys.paired_block(b);
      if (paired.finite) {
        work_paired(b, paired, dbias, w);
        continue;
      }
    }
    work_block(b, keys.block(b), rows, dbias, w);
  }
}

PairedTile BackwardTile::pairs(const BackwardWorkspace& w) const {
  return {kernels_, shape_, tile_.rows(), w.paired};
}

/// All keys of the block for all rows: weights of 0 take out those that a row does not see.
void BackwardTile::work_paired(int64_t block, const PairedBlock& keys, const BiasSums* dbias,
                               const BackwardWorkspace& w) const {
  const PairedTile tile = pairs(w);
  tile.score(keys, scale_, w.scores, w.ds);
  weigh(block, dbias, w);
  if (item_.dv.data) tile.add_to_values(w.scores, keys);
  if (item_.dk.data) tile.add_to_keys(w.ds, keys);
  if (item_.dq.data) tile.add_to_queries(w.ds, keys, w.dq);
}

void BackwardTile::work_block(int64_t block, const ChunkBlock& keys, const FiniteRows& rows,
                              const BiasSums* dbias, const BackwardWorkspace& w) const {
  const bool alike = std::all_of(w.visible, w.visible + tile_.rows(),
                                 [&](uint64_t seen) { return seen == ~uint64_t{0}; });
  score(keys, alike, w);
  weigh(block, dbias, w);
  if (item_.dv.data) {
    add_to_keys(w.scores, w.d_out, rows.d_out, v_stride_, alike, keys.dv, w);
  }
  if (item_.dk.data) add_to_keys(w.ds, w.q, rows.q, k_stride_, alike, keys.dk, w);
  if (item_.dq.data) add_to_queries(keys, alike, w);
}

/// As Tile::look(), but rows whose softmax had no key see none.
uint64_t BackwardTile::look(int64_t block, const BackwardWorkspace& w) const {
  constexpr float none = -std::numeric_limits<float>::infinity();
  if (!tile_.look(block, w).any()) return 0;
  uint64_t any = 0;
  for (int64_t r = 0; r < tile_.rows(); ++r) {
    if (lse_[r] == none) w.visible[r] = 0;
    any |= w.visible[r];
  }
  return any;
}

template <typename Body>
void BackwardTile::for_alike(bool alike, const BackwardWorkspace& w, const Body& body) const {
  for_rows_alike(w.visible, tile_.rows(), alike ? tile_.rows() : 2 * few_rows, body);
}

/// Scores, before anything but the scale, and gradients of weights.
void BackwardTile::score(const ChunkBlock& keys, bool alike, const BackwardWorkspace& w) const {
  for_alike(alike, w, [&](int64_t r, int64_t n, Range seen) {
    const auto multiply = [&](const float* rows, int64_t stride, int64_t dim, const float* columns,
                              float* to) {
      kernels_.multiply({.a = rows + r * stride,
                         .a_stride = stride,
                         .transposed = false,
                         .b = columns,
                         .b_stride = key_block,
                         .c = to + r * key_block,
                         .c_stride = key_block,
                         .add = false,
                         .rows = n,
                         .depth = {0, narrow(dim)},
                         .columns = seen});
    };
    multiply(w.q, k_stride_, shape_.head_dim, keys.k_columns, w.scores);
    multiply(w.d_out, v_stride_, shape_.v_head_dim, keys.v_columns, w.ds);
  });
}

/// From scores to weights, and from gradients of weights to those of scaled products.
void BackwardTile::weigh(int64_t block, const BiasSums* dbias, const BackwardWorkspace& w) const {
  const int64_t rows = tile_.rows();
  tile_.cap_scores(w);
  if (options_.softcap > 0) std::copy_n(w.scores, rows * key_block, w.capped);
  tile_.add_to_scores(block, w);
  kernels_.weigh_gradients(w.scores, w.ds, w.visible, rows, lse_, delta_);
  if (dbias) dbias->add(tile_, block, w.visible, w.ds);
  if (options_.softcap > 0) {
    kernels_.softcap_slope(w.ds, w.capped, w.visible, rows, options_.softcap);
  }
}

void BackwardTile::add_to_queries(const ChunkBlock& keys, bool alike,
                                  const BackwardWorkspace& w) const {
  for_alike(alike, w, [&](int64_t r, int64_t n, Range seen) {
    kernels_.multiply({.a = w.ds + r * key_block,
                       .a_stride = key_block,
                       .transposed = false,
                       .b = keys.k,
                       .b_stride = k_stride_,
                       .c = w.dq + r * k_stride_,
                       .c_stride = k_stride_,
                       .add = true,
                       .rows = n,
                       .depth = seen,
                       .columns = {0, narrow(k_stride_)}});
  });
  // A weight of 0 takes a key out unless it is NaN or infinite: such keys count by themselves.
  for (uint64_t odd = keys.odd_keys; odd != 0; odd &= odd - 1) {
    const int s = std::countr_zero(odd);
    for (int64_t r = 0; r < tile_.rows(); ++r) {
      if ((w.visible[r] >> s & 1) == 0) continue;
      for (int64_t d = 0; d < shape_.head_dim; ++d) {
        w.dq[r * k_stride_ + d] += w.ds[r * key_block + s] * keys.k_columns[d * key_block + s];
      }
    }
  }
}

/// sums [key_block][stride] += weights [rows][key_block], transposed, times rows [rows][stride].
void BackwardTile::add_to_keys(const float* weights, const float* rows, const float* finite_rows,
                               int64_t stride, bool alike, float* sums,
                               const BackwardWorkspace& w) const {
  const auto multiply = [&](int64_t s, int64_t n, Range depth) {
    kernels_.multiply({.a = weights + s,
                       .a_stride = key_block,
                       .transposed = true,
                       .b = finite_rows,
                       .b_stride = stride,
                       .c = sums + s * stride,
                       .c_stride = stride,
                       .add = true,
                       .rows = n,
                       .depth = depth,
                       .columns = {0, narrow(stride)}});
  };
  for (int64_t r = 0; r < tile_.rows(); r += rows_at_once) {
    const int64_t end = std::min(tile_.rows(), r + rows_at_once);
    if (alike) {
      multiply(0, key_block, {narrow(r), narrow(end)});
      continue;
    }
    for (int64_t s = 0; s < key_block; s += few_rows) {
      const int64_t n = std::min(few_rows, key_block - s);
      const uint64_t bits = ((uint64_t{1} << n) - 1) << s;
      int64_t from = r;
      int64_t until = end;
      while (from < until && (w.visible[from] & bits) == 0) ++from;
      while (from < until && (w.visible[until - 1] & bits) == 0) --until;
      if (from < until) multiply(s, n, {narrow(from), narrow(until)});
    }
  }
  if (rows == finite_rows) return;
  for (int64_t r = 0; r < tile_.rows(); ++r) {
    const float* const row = rows + r * stride;
    if (kernels_.all_finite(row, stride)) continue;
    for (uint64_t seen = w.visible[r]; seen != 0; seen &= seen - 1) {
      const int s = std::countr_zero(seen);
      const float weight = weights[r * key_block + s];
      for (int64_t d = 0; d < stride; ++d) sums[s * stride + d] += weight * row[d];
    }
  }
}

/// The rows, or, where some are not finite, a copy in which these are 0.
const float* BackwardTile::finite(const float* rows, int64_t stride, float* scratch) const {
  const int64_t n = tile_.rows() * stride;
  if (kernels_.all_finite(rows, n)) return rows;
  std::copy_n(rows, n, scratch);
  for (int64_t i = 0; i < n; i += stride) {
    if (!kernels_.all_finite(rows + i, stride)) std::fill_n(scratch + i, stride, 0.0f);
  }
  return scratch;
}

void BackwardTile::add_dq(bool first, bool last, float* sums, const BackwardWorkspace& w) const {
  dq_rows().add(w.dq, first, last, sums);
}

void BackwardTile::clear_dq(const BackwardWorkspace& w) const {
  std::fill_n(w.dq, tile_.rows() * k_stride_, 0.0f);
  dq_rows().write(w.dq);
}

QueryGradients BackwardTile::dq_rows() const {
  return {kernels_, item_.dq, tile_, first_row_, scale_};
}

}  // namespace gqa
