#include "attention/tile.h"

#include <bit>
#include <cmath>
#include <utility>

#include "attention/blocks.h"
#include "attention/prefetch.h"
#include "core/half.h"
#include "kernels/load_row.h"

namespace gqa {
namespace {

using kernels::key_block;
using kernels::Range;

/// Up to this many rows, keys and values are decoded in registers; for more it pays to do it once.
constexpr int64_t decode_once_rows = 8 * kernels::few_rows;

}  // namespace

Tile::Tile(const kernels::Table& kernels, const AttendItem& item, const ItemShape& shape,
           const AttendOptions& options, int32_t kv_head, int64_t t_begin, int64_t t_end)
    : kernels_(kernels),
      item_(item),
      shape_(shape),
      options_(options),
      t_begin_(t_begin),
      t_end_(t_end),
      kv_head_(kv_head),
      first_head_(shape_.first_head(kv_head)),
      heads_(shape_.heads(kv_head)),
      query_bytes_(kernels.query_bytes(shape_.kv_dtype, shape_.head_dim)),
      keys_(options_.mask, shape_, kv_head, t_begin, t_end) {}

float Tile::scale() const {
  const auto dim = static_cast<float>(shape_.head_dim);
  return options_.scale.value_or(1.0f / std::sqrt(dim));
}

void Tile::load_queries(const Workspace& w) const {
  const AnyView<3>& x = item_.q;
  float* q = w.q;
  const float factor = scale();
  for (int64_t r = 0; r < rows(); ++r) {
    const int64_t base = token(r) * x.strides[0] + head(r) * x.strides[1];
    if (token(r) + tokens_ahead < t_end_) prefetch_row(x, token(r) + tokens_ahead, head(r));
    kernels::load_row(kernels_, x.data, x.dtype, base, x.strides[2], shape_.head_dim, q);
    kernels_.prepare_query(shape_.kv_dtype, q, shape_.head_dim, factor,
                           w.queries + r * query_bytes_);
  }
}

void Tile::attend_chunk(int64_t chunk, const Workspace& w, const Rows& out) const {
  out.reset(rows(), stride());
  const int64_t end = (chunk + 1) * chunk_blocks;
  int64_t next = 0;
  for (int64_t block = keys_.next(chunk * chunk_blocks, end); block < end; block = next) {
    next = keys_.next(block + 1, end);
    attend_block(block, next < end ? next : keys_.after(end), w, out);
  }
}

/// `next_block`: what comes after it, if memory is to be asked for it.
void Tile::attend_block(int64_t block, int64_t next_block, const Workspace& w,
                        const Rows& out) const {
  const uint64_t any = look(block, w);
  if (any == 0) return;
  const Range keys = range_of(any);
  const bool alike =
      std::popcount(any) == keys.end - keys.begin &&
      std::all_of(w.visible, w.visible + rows(), [&](uint64_t seen) { return seen == any; });
  const bool few = rows() <= decode_once_rows;
  const Operand k = load_keys(kernels_, item_.kv, kv_head_, block, keys, shape_.head_dim, few, w.k);
  kernels::Ahead next = values_ahead(item_.kv, kv_head_, block);  // asked for once
  for_alike(alike, w, [&](int64_t r, int64_t n, Range seen) {
    kernels_.score(query(w, r), n, shape_.head_dim, k.type, k.words, seen, w.scores + r * key_block,
                   std::exchange(next, {}));
  });
  if (k.scales) kernels_.scale_keys(w.scores, w.visible, rows(), k.scales);
  cap_scores(w);
  add_to_scores(block, w);
  // What comes next is asked for at an even rate, between the products, too: memory must not rest.
  next = keys_ahead(item_.kv, kv_head_, next_block);
  kernels_.softmax(w.scores, w.visible, rows(), out.states, out.acc, stride(), next.take_part(8));
  const Operand v =
      load_values(kernels_, item_.kv, kv_head_, block, keys, shape_.v_head_dim, few && alike, w.v);
  if (v.scales) {
    kernels_.scale_keys(w.scores, w.visible, rows(), v.scales);
  } else if (!alike && !kernels_.takes_stored(v.type) && !finite(v, keys)) {
    accumulate_one_by_one(keys, v, w, out);
    return;
  }
  for_alike(alike, w, [&](int64_t r, int64_t n, Range seen) {
    kernels_.accumulate(w.scores + r * key_block, w.visible + r, n, v.type, v.words, v.columns,
                        seen, out.acc + r * stride(), stride(), std::exchange(next, {}));
  });
}

/// No NaN and no infinity among values that have been decoded.
bool Tile::finite(const Operand& v, Range keys) const {
  return kernels_.all_finite(static_cast<const float*>(v.words) + keys.begin * v.columns,
                             (keys.end - keys.begin) * v.columns);
}

template <typename Body>
void Tile::for_alike(bool alike, const Workspace& w, const Body& body) const {
  for_rows_alike(w.visible, rows(), alike ? rows() : kernels_.edge_rows, body);
}

uint64_t Tile::look(int64_t block, const ScoreBlock& w) const {
  // Most blocks: no token needs a look of its own.
  if (!item_.bias.data && keys_.all_see(block)) {
    std::fill(w.visible, w.visible + rows(), ~uint64_t{0});
    return ~uint64_t{0};
  }
  uint64_t any = 0;
  int64_t r = 0;
  for (int64_t t = t_begin_; t < t_end_; ++t) {
    const VisibleKeys keys = visible_keys(options_.mask, shape_.q_start + t, shape_.keys);
    const uint64_t seen =
        block_bits(keys, block * key_block) & shape_.selected_keys(t, kv_head_, block);
    for (int64_t h = 0; h < heads_; ++h, ++r) {
      w.visible[r] = seen;
      if (item_.bias.data && seen != 0) {
        float* bias = w.bias + r * key_block;
        load_bias(r, block, bias);
        w.visible[r] &= kernels_.above_minus_infinity(bias);
      }
      any |= w.visible[r];
    }
  }
  return any;
}

/// out [key_block]: a row's bias for the keys of a block, 0 behind the last one.
void Tile::load_bias(int64_t row, int64_t block, float* out) const {
  const AnyView<3>& x = item_.bias;
  // An axis of size 1 stands for all: it is never stepped along.
  const auto step = [&](size_t axis) { return x.shape[axis] == 1 ? 0 : x.strides[axis]; };
  const int64_t first = block * key_block;
  const int64_t count = std::min(key_block, shape_.keys.len - first);
  const int64_t base = head(row) * step(0) + token(row) * step(1) + first * step(2);
  kernels::load_row(kernels_, x.data, x.dtype, base, step(2), count, out);
  std::fill(out + count, out + key_block, 0.0f);
}

void Tile::cap_scores(const ScoreBlock& w) const {
  if (options_.softcap > 0) kernels_.softcap(w.scores, rows() * key_block, options_.softcap);
}

void Tile::add_to_scores(int64_t block, const ScoreBlock& w) const {
  if (!options_.alibi.empty()) {
    for (int64_t r = 0; r < rows(); ++r) {
      const int64_t ahead = shape_.q_start + token(r) - block * key_block;
      kernels_.subtract_distance(w.scores + r * key_block, static_cast<float>(ahead),
                                 options_.alibi[static_cast<size_t>(head(r))]);
    }
  }
  if (item_.bias.data) kernels_.add(w.scores, w.bias, rows() * key_block);
}

/// A weight of 0 takes a key out, unless its value is NaN or infinite: then rows that see different
/// keys go one by one, each over its own.
void Tile::accumulate_one_by_one(Range keys, const Operand& v, const Workspace& w,
                                 const Rows& out) const {
  for (int64_t r = 0; r < rows(); ++r) {
    for (int32_t s = keys.begin; s < keys.end; ++s) {
      if ((w.visible[r] >> s & 1) == 0) continue;
      kernels_.accumulate(w.scores + r * key_block, w.visible + r, 1, v.type, v.words, v.columns,
                          {s, s + 1}, out.acc + r * stride(), stride(), {});
    }
  }
}

void Tile::merge(const Rows& total, const Rows& later) const {
  for (int64_t r = 0; r < rows(); ++r) {
    kernels_.merge(total.states[r], total.acc + r * stride(), later.states[r],
                   later.acc + r * stride(), stride());
  }
}

/// What a row's accumulator is multiplied by: one over the sum, of which a sink is a part.
float Tile::normaliser(const kernels::RowState& state, int64_t head) const {
  constexpr float none = -std::numeric_limits<float>::infinity();
  const float sink = options_.sinks.empty() ? none : options_.sinks[static_cast<size_t>(head)];
  if (sink == none) return state.sum == 0.0f ? 0.0f : 1.0f / state.sum;
  const float max = std::max(state.max, sink);
  const float own = state.max == none ? 0.0f : std::exp(state.max - max);
  return own / (own * state.sum + std::exp(sink - max));
}

void Tile::finish(const Rows& total) const {
  for (int64_t r = 0; r < rows(); ++r) {
    const kernels::RowState& state = total.states[r];
    float* acc = total.acc + r * stride();
    const float factor = normaliser(state, head(r));
    for (int64_t d = 0; d < shape_.v_head_dim; ++d) acc[d] *= factor;
    write(r, acc);
    if (item_.lse.data) {
      const auto& lse = item_.lse;
      store_element(lse.data, DType::f32, token(r) * lse.strides[0] + head(r) * lse.strides[1],
                    state.max + std::log(state.sum));
    }
  }
}

void Tile::write(int64_t row, const float* values) const {
  const AnyMutView<3>& out = item_.out;
  const int64_t base = token(row) * out.strides[0] + head(row) * out.strides[1];
  kernels::store_row(kernels_, values, shape_.v_head_dim, out.data, out.dtype, base,
                     out.strides[2]);
}

}  // namespace gqa
