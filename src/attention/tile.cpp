#include "attention/tile.h"

#include <array>
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
      stretch_(kernels.stretch(shape_.kv_dtype)),
      keys_(options_.mask, shape_, kv_head, t_begin, t_end) {}

/// Softmax scales the scores: nothing else is done to them.
bool Tile::scales_late() const {
  return kernels_.scales_late(shape_.kv_dtype) && scale() > 0 && options_.softcap <= 0 &&
         options_.alibi.empty() && !item_.bias.data;
}

bool Tile::few() const { return rows() <= decode_once_rows; }

float Tile::scale() const { return score_scale(options_, shape_); }

void Tile::load_queries(const Workspace& w) const {
  const AnyView<3>& x = item_.q;
  float* q = w.q;
  const float factor = scales_late() ? 1.0f : scale();
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
  for (int64_t first = chunk * chunk_blocks; first < end; first += stretch_) {
    attend_stretch(first, w, out);
  }
}

/// The blocks from `first` on, as many as a stretch has: first all scores, then all weights.
void Tile::attend_stretch(int64_t first, const Workspace& w, const Rows& out) const {
  const Stretch stretch(keys_, first, stretch_);
  PartsAhead ahead(kernels_, item_.kv, kv_head_, keys_, stretch);
  const Shares shares = shares_of(stretch_, rows());
  std::array<SeenBlock, kernels::stretch_blocks> seen;
  size_t n = 0;
  for (const int64_t block : stretch.blocks) {
    const ScoreBlock scores = w.block(static_cast<int64_t>(n), stretch_, rows());
    const uint64_t any = look(block, scores);
    if (any == 0) continue;
    seen[n] = {block, range_of(any), all_see(any, scores)};
    score_block(seen[n++], scores, w, ahead.take(shares.score));
  }
  if (n == 0) return;
  kernels_.softmax(shape_.kv_dtype, w.scores, stretch_ * key_block, w.visible,
                   static_cast<int64_t>(n), rows(), scales_late() ? scale() : 1.0f, out.states,
                   out.acc, stride(), ahead.take(shares.softmax * std::ssize(stretch.blocks)));
  if (kernels_.takes_stored(shape_.kv_dtype)) {
    accumulate_stored(std::span(seen.data(), n), w, out, ahead, shares.accumulate);
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    accumulate_block(seen[i], w.block(static_cast<int64_t>(i), stretch_, rows()), w, out,
                     ahead.take(shares.accumulate));
  }
}

/// Values that the kernels take as they are stored: all blocks of a stretch at once.
void Tile::accumulate_stored(std::span<const SeenBlock> seen, const Workspace& w, const Rows& out,
                             PartsAhead& ahead, int64_t share) const {
  std::array<kernels::WeighedBlock, kernels::stretch_blocks> stored;
  KvDType type = shape_.kv_dtype;
  for (size_t i = 0; i < seen.size(); ++i) {
    stored[i] = stored_values(seen[i], static_cast<int64_t>(i), w, ahead.take(share), type);
  }
  kernels_.accumulate(std::span(stored.data(), seen.size()), rows(), type, shape_.v_head_dim,
                      out.acc, stride());
}

/// Block i of a stretch, whose values the kernels take as they are stored, and the type that those
/// are arranged as, the same for all.
kernels::WeighedBlock Tile::stored_values(const SeenBlock& b, int64_t i, const Workspace& w,
                                          kernels::Ahead ahead, KvDType& type) const {
  const ScoreBlock weights = w.block(i, stretch_, rows());
  const Operand v = load_values(kernels_, item_.kv, kv_head_, b.block, b.keys, shape_.v_head_dim,
                                rows(), true, w.v + i * key_block * stride());
  if (v.scales) kernels_.scale_keys(weights.scores, weights.row, weights.visible, rows(), v.scales);
  type = v.type;
  return {weights.scores, weights.row, weights.visible, v.words, v.order, b.keys, ahead};
}

/// Every row sees the same keys, and those in one piece.
bool Tile::all_see(uint64_t any, const ScoreBlock& scores) const {
  const uint64_t from_first = any >> range_of(any).begin;
  return (from_first & (from_first + 1)) == 0 &&
         std::all_of(scores.visible, scores.visible + rows(),
                     [&](uint64_t seen) { return seen == any; });
}

void Tile::score_block(const SeenBlock& b, const ScoreBlock& scores, const Workspace& w,
                       kernels::Ahead ahead) const {
  const Operand k =
      load_keys(kernels_, item_.kv, kv_head_, b.block, b.keys, shape_.head_dim, rows(), few(), w.k);
  for_alike(b, scores, [&](int64_t r, int64_t n, Range seen) {
    kernels_.score(query(w, r), n, shape_.head_dim, k, seen, scores.scores + r * scores.row,
                   scores.row, std::exchange(ahead, {}));
  });
  if (k.scales) kernels_.scale_keys(scores.scores, scores.row, scores.visible, rows(), k.scales);
  cap_scores(scores);
  add_to_scores(b.block, scores);
}

void Tile::accumulate_block(const SeenBlock& b, const ScoreBlock& weights, const Workspace& w,
                            const Rows& out, kernels::Ahead ahead) const {
  const Operand v = load_values(kernels_, item_.kv, kv_head_, b.block, b.keys, shape_.v_head_dim,
                                rows(), few() && b.alike, w.v);
  if (v.scales) {
    kernels_.scale_keys(weights.scores, weights.row, weights.visible, rows(), v.scales);
  } else if (!b.alike && !finite(v, b.keys)) {
    accumulate_one_by_one(b.keys, v, weights, out);
    return;
  }
  for_alike(b, weights, [&](int64_t r, int64_t n, Range seen) {
    const kernels::WeighedBlock some{
        weights.scores + r * weights.row, weights.row, weights.visible + r, v.words, v.order, seen,
        std::exchange(ahead, {})};
    kernels_.accumulate(std::span(&some, 1), n, v.type, v.columns, out.acc + r * stride(),
                        stride());
  });
}

/// No NaN and no infinity among values that are f32.
bool Tile::finite(const Operand& v, Range keys) const {
  // A panel of them lies in one piece, and so do whole rows.
  const int64_t row = v.order.row;
  for (int64_t c = 0; c < v.columns; c += row) {
    const float* at = static_cast<const float*>(v.words) + v.order.at(keys.begin, c);
    if (!kernels_.all_finite(at, (keys.end - keys.begin) * row)) return false;
  }
  return true;
}

template <typename Body>
void Tile::for_alike(const SeenBlock& b, const ScoreBlock& w, const Body& body) const {
  if (b.alike) return body(0, rows(), b.keys);
  for_rows_alike(w.visible, rows(), kernels_.edge_rows, body);
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
  if (options_.softcap <= 0) return;
  for (int64_t r = 0; r < rows(); ++r) {
    kernels_.softcap(w.scores + r * w.row, key_block, options_.softcap);
  }
}

void Tile::add_to_scores(int64_t block, const ScoreBlock& w) const {
  if (options_.alibi.empty() && !item_.bias.data) return;
  for (int64_t r = 0; r < rows(); ++r) {
    float* scores = w.scores + r * w.row;
    if (!options_.alibi.empty()) {
      const int64_t ahead = shape_.q_start + token(r) - block * key_block;
      kernels_.subtract_distance(scores, static_cast<float>(ahead),
                                 options_.alibi[static_cast<size_t>(head(r))]);
    }
    if (item_.bias.data) kernels_.add(scores, w.bias + r * key_block, key_block);
  }
}

/// A weight of 0 takes a key out, unless its value is NaN or infinite: then rows that see different
/// keys go one by one, each over its own.
void Tile::accumulate_one_by_one(Range keys, const Operand& v, const ScoreBlock& w,
                                 const Rows& out) const {
  for (int64_t r = 0; r < rows(); ++r) {
    for (int32_t s = keys.begin; s < keys.end; ++s) {
      if ((w.visible[r] >> s & 1) == 0) continue;
      const kernels::WeighedBlock one{w.scores + r * w.row, w.row, w.visible + r, v.words, v.order,
                                      {s, s + 1},           {}};
      kernels_.accumulate(std::span(&one, 1), 1, v.type, v.columns, out.acc + r * stride(),
                          stride());
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
