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
      rows_((t_end - t_begin) * heads_),
      stride_(row_stride(shape_.v_head_dim)),
      query_bytes_(kernels.query_bytes(shape_.kv_dtype, shape_.head_dim)),
      stretch_(kernels.stretch(shape_.kv_dtype)),
      few_(rows_ <= decode_once_rows),
      takes_stored_(kernels.takes_stored(shape_.kv_dtype)),
      changes_scores_(options_.softcap > 0 || !options_.alibi.empty() || item_.bias.data),
      scales_late_(kernels.scales_late(shape_.kv_dtype) && scale() > 0 && !changes_scores_),
      keys_(options_.mask, shape_, kv_head, t_begin, t_end),
      kv_(kernels, item_.kv, kv_head) {}

float Tile::scale() const { return score_scale(options_, shape_); }

void Tile::load_queries(const Workspace& w) const {
  const AnyView<3>& x = item_.q;
  float* q = w.q;
  const float factor = scales_late_ ? 1.0f : scale();
  for (int64_t r = 0; r < rows_; ++r) {
    const int64_t base = token(r) * x.strides[0] + head(r) * x.strides[1];
    if (token(r) + tokens_ahead < t_end_) prefetch_row(x, token(r) + tokens_ahead, head(r));
    kernels::load_row(kernels_, x.data, x.dtype, base, x.strides[2], shape_.head_dim, q);
    kernels_.prepare_query(shape_.kv_dtype, q, shape_.head_dim, factor,
                           w.queries + r * query_bytes_);
  }
}

void Tile::attend_chunk(int64_t chunk, const Workspace& w, const Rows& out) const {
  out.reset(rows_, stride_);
  const int64_t begin = chunk * chunk_blocks;
  const int64_t end = begin + chunk_blocks;
  if (stretch_ == 1) {
    for (int64_t b = keys_.next(begin, end); b < end; b = keys_.next(b + 1, end)) {
      attend_block(b, w, out);
    }
    return;
  }
  for (int64_t first = begin; first < end; first += stretch_) attend_stretch(first, w, out);
}

/// A block by itself. Few rows take as little time for its products that all else counts, too.
void Tile::attend_block(int64_t block, const Workspace& w, const Rows& out) const {
  const SeenBlock seen = look(block, w);
  if (!seen.any()) return;
  const kernels::Ahead::Piece next = kv_.cached_keys(kv_.at(keys_.after(block + 1)));
  const int64_t beside_softmax = softmax_share(next.bytes);
  kernels::Ahead ahead{.second_level = kernels_.second_level};
  ahead.pieces[0] = kv_.cached_values(seen.kv);
  score_block(seen, w, w, ahead);
  ahead.pieces[0] = {next.data, beside_softmax};
  kernels_.softmax(shape_.kv_dtype, w.scores, w.row, w.visible, 1, rows_, softmax_scale(),
                   out.states, out.acc, stride_, ahead);
  ahead.pieces[0] = {next.data + beside_softmax, next.bytes - beside_softmax};
  if (!takes_stored_) return accumulate_block(seen, w, w, out, ahead);
  const Operand v = stored_values(seen, w, w.v);
  const kernels::WeighedBlock stored{w.scores, w.row, w.visible, &v, seen.keys, &ahead};
  kernels_.accumulate(std::span(&stored, 1), rows_, shape_.v_head_dim, out.acc, stride_);
}

/// The blocks from `first` on, as many as a stretch has: first all scores, then all weights.
void Tile::attend_stretch(int64_t first, const Workspace& w, const Rows& out) const {
  const Stretch stretch(keys_, first, stretch_);
  PartsAhead ahead(kv_, keys_, stretch, kernels_.second_level);
  const Shares shares = shares_of(rows_);
  std::array<SeenBlock, kernels::stretch_blocks> seen;
  size_t n = 0;
  for (const int64_t block : stretch.blocks) {
    const ScoreBlock scores = w.block(static_cast<int64_t>(n), stretch_, rows_);
    seen[n] = look(block, scores);
    if (!seen[n].any()) continue;
    score_block(seen[n++], scores, w, ahead.take(shares.score));
  }
  if (n == 0) return;
  kernels_.softmax(shape_.kv_dtype, w.scores, stretch_ * key_block, w.visible,
                   static_cast<int64_t>(n), rows_, softmax_scale(), out.states, out.acc, stride_,
                   ahead.take(shares.softmax * std::ssize(stretch.blocks)));
  if (takes_stored_) {
    accumulate_stored(std::span(seen.data(), n), w, out, ahead, shares.accumulate);
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    accumulate_block(seen[i], w.block(static_cast<int64_t>(i), stretch_, rows_), w, out,
                     ahead.take(shares.accumulate));
  }
}

/// Values that the kernels take as they are stored: all blocks of a stretch at once.
void Tile::accumulate_stored(std::span<const SeenBlock> seen, const Workspace& w, const Rows& out,
                             PartsAhead& ahead, int64_t share) const {
  std::array<kernels::WeighedBlock, kernels::stretch_blocks> stored;
  std::array<Operand, kernels::stretch_blocks> values;
  std::array<kernels::Ahead, kernels::stretch_blocks> aheads;
  for (size_t i = 0; i < seen.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    const ScoreBlock weights = w.block(at, stretch_, rows_);
    values[i] = stored_values(seen[i], weights, w.v + at * key_block * stride_);
    aheads[i] = ahead.take(share);
    stored[i] = {weights.scores, weights.row,  weights.visible,
                 &values[i],     seen[i].keys, &aheads[i]};
  }
  kernels_.accumulate(std::span(stored.data(), seen.size()), rows_, shape_.v_head_dim, out.acc,
                      stride_);
}

/// Values of a block that the kernels take as they are stored; their scales go to the weights.
Operand Tile::stored_values(const SeenBlock& b, const ScoreBlock& weights, float* scratch) const {
  const Operand v = kv_.values(b.kv, b.keys, rows_, true, scratch);
  if (v.scales) kernels_.scale_keys(weights.scores, weights.row, weights.visible, rows_, v.scales);
  return v;
}

void Tile::score_block(const SeenBlock& b, const ScoreBlock& scores, const Workspace& w,
                       const kernels::Ahead& ahead) const {
  const Operand k = kv_.keys(b.kv, b.keys, rows_, few_, w.k);
  for_alike(b, scores, ahead, [&](int64_t r, int64_t n, Range seen, const kernels::Ahead& next) {
    kernels_.score(query(w, r), n, shape_.head_dim, k, seen, scores.scores + r * scores.row,
                   scores.row, next);
  });
  if (k.scales) kernels_.scale_keys(scores.scores, scores.row, scores.visible, rows_, k.scales);
  if (!changes_scores_) return;
  cap_scores(scores);
  add_to_scores(b.kv.number, scores);
}

void Tile::accumulate_block(const SeenBlock& b, const ScoreBlock& weights, const Workspace& w,
                            const Rows& out, const kernels::Ahead& ahead) const {
  const Operand v = kv_.values(b.kv, b.keys, rows_, few_ && b.alike, w.v);
  if (v.scales) {
    kernels_.scale_keys(weights.scores, weights.row, weights.visible, rows_, v.scales);
  } else if (!b.alike && !finite(v, b.keys)) {
    accumulate_one_by_one(b.keys, v, weights, out);
    return;
  }
  for_alike(b, weights, ahead, [&](int64_t r, int64_t n, Range seen, const kernels::Ahead& next) {
    const kernels::WeighedBlock some{
        weights.scores + r * weights.row, weights.row, weights.visible + r, &v, seen, &next};
    kernels_.accumulate(std::span(&some, 1), n, v.columns, out.acc + r * stride_, stride_);
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

/// Calls body(row, rows, keys, ahead) for rows that see about the same keys of a block; the first
/// ones ask for what is wanted next.
template <typename Body>
void Tile::for_alike(const SeenBlock& b, const ScoreBlock& w, const kernels::Ahead& ahead,
                     const Body& body) const {
  if (b.alike) return body(0, rows_, b.keys, ahead);
  kernels::Ahead first = ahead;
  for_rows_alike(w.visible, rows_, kernels_.edge_rows, [&](int64_t r, int64_t n, Range seen) {
    body(r, n, seen, std::exchange(first, {}));
  });
}

/// A weight of 0 takes a key out, unless its value is NaN or infinite: then rows that see different
/// keys go one by one, each over its own.
void Tile::accumulate_one_by_one(Range keys, const Operand& v, const ScoreBlock& w,
                                 const Rows& out) const {
  for (int64_t r = 0; r < rows_; ++r) {
    for (int32_t s = keys.begin; s < keys.end; ++s) {
      if ((w.visible[r] >> s & 1) == 0) continue;
      const kernels::WeighedBlock one{w.scores + r * w.row, w.row, w.visible + r, &v, {s, s + 1}};
      kernels_.accumulate(std::span(&one, 1), 1, v.columns, out.acc + r * stride_, stride_);
    }
  }
}

void Tile::merge(const Rows& total, const Rows& later) const {
  for (int64_t r = 0; r < rows_; ++r) {
    kernels_.merge(total.states[r], total.acc + r * stride_, later.states[r],
                   later.acc + r * stride_, stride_);
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
  for (int64_t r = 0; r < rows_; ++r) {
    const kernels::RowState& state = total.states[r];
    float* acc = total.acc + r * stride_;
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
