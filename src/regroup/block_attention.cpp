#include "regroup/block_attention.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "regroup/products.h"

namespace gqa {
namespace {

/// Query rows at a time: keys behind them are not even computed.
constexpr int64_t piece = 128;

/// Row-wise softmax of scores whose row i is query first + i: keys (query - window, query].
template <typename Scores>
void causal_softmax(Scores scores, int64_t first, int64_t window) {
  for (int64_t i = 0; i < scores.rows(); ++i) {
    const int64_t end = first + i + 1;
    const int64_t begin = window > 0 ? std::max<int64_t>(0, end - window) : 0;
    auto row = scores.row(i);
    auto seen = row.segment(begin, end - begin);
    seen = (seen.array() - seen.maxCoeff()).exp().matrix();
    seen /= seen.sum();
    row.head(begin).setZero();
    row.tail(row.size() - end).setZero();
  }
}

}  // namespace

BlockWeights BlockWeights::zeros_like(const BlockWeights& other) {
  return {Rows::Zero(other.q.rows(), other.q.cols()), Rows::Zero(other.k.rows(), other.k.cols()),
          Rows::Zero(other.v.rows(), other.v.cols()), Rows::Zero(other.o.rows(), other.o.cols())};
}

BlockWeights& BlockWeights::add(float factor, const BlockWeights& other) {
  q += factor * other.q;
  k += factor * other.k;
  v += factor * other.v;
  o += factor * other.o;
  return *this;
}

double BlockWeights::dot(const BlockWeights& other) const {
  const auto dot_of = [](const Rows& a, const Rows& b) {
    double sum = 0;
    for (int64_t r = 0; r < a.rows(); ++r) sum += static_cast<double>(a.row(r).dot(b.row(r)));
    return sum;
  };
  return dot_of(q, other.q) + dot_of(k, other.k) + dot_of(v, other.v) + dot_of(o, other.o);
}

BlockWeights block_weights(const Heads& heads) {
  return {heads.q.cast<float>(), heads.k.cast<float>(), heads.v.cast<float>(),
          heads.o.cast<float>()};
}

Heads with_weights(Heads heads, const BlockWeights& weights) {
  heads.q = weights.q.cast<double>();
  heads.k = weights.k.cast<double>();
  heads.v = weights.v.cast<double>();
  heads.o = weights.o.cast<double>();
  return heads;
}

BlockShape::BlockShape(const ModelConfig& config, const CalibrationWindows& text,
                       std::vector<int64_t> begin, const std::vector<int64_t>& planes)
    : head_dim(planes.empty() ? config.head_dim : 2 * std::ssize(planes)),
      q_begin(std::move(begin)),
      window_begin(text.begin),
      mask_window(config.window),
      cosines(text.longest(), head_dim / 2),
      sines(text.longest(), head_dim / 2) {
  const Rope rope(config.rope, config.head_dim);
  std::vector<float> all_cosines(static_cast<size_t>(config.head_dim / 2));
  std::vector<float> all_sines = all_cosines;
  for (int64_t t = 0; t < cosines.rows(); ++t) {
    rope.angles(t, all_cosines.data(), all_sines.data());
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      const auto plane = static_cast<size_t>(planes.empty() ? i : planes[static_cast<size_t>(i)]);
      cosines(t, i) = all_cosines[plane];
      sines(t, i) = all_sines[plane];
    }
  }
}

int64_t BlockShape::kv_head(int64_t q_head) const {
  return std::upper_bound(q_begin.begin(), q_begin.end(), q_head) - q_begin.begin() - 1;
}

BlockAttention::BlockAttention(Context::Impl& context, const BlockShape& shape, const Rows& inputs)
    : context_(context),
      shape_(shape),
      inputs_(inputs),
      scale_(1.0f / std::sqrt(static_cast<float>(shape.head_dim))),
      probabilities_(static_cast<size_t>(shape.windows() * shape.q_heads())) {}

template <typename Body>
void BlockAttention::for_heads(const Body& body) const {
  const int64_t heads = shape_.q_heads();
  context_.pool.parallel_for(shape_.windows() * heads,
                             [&](int64_t i, int) { body(i / heads, i % heads); });
}

/// Turns every head of every row by its position; back: the transposed map.
void BlockAttention::rotate(Rows& x, bool back) const {
  const int64_t half = shape_.head_dim / 2;
  const float sign = back ? -1.0f : 1.0f;
  context_.pool.parallel_for(shape_.windows(), [&](int64_t w, int) {
    for (int64_t r = shape_.window_begin[static_cast<size_t>(w)];
         r < shape_.window_begin[static_cast<size_t>(w) + 1]; ++r) {
      const int64_t t = r - shape_.window_begin[static_cast<size_t>(w)];
      const auto cosines = shape_.cosines.row(t).array();
      const auto sines = sign * shape_.sines.row(t).array();
      for (int64_t c = 0; c < x.cols(); c += shape_.head_dim) {
        auto low = x.row(r).segment(c, half).array();
        auto high = x.row(r).segment(c + half, half).array();
        const Eigen::Array<float, 1, Eigen::Dynamic> turned = low * cosines - high * sines;
        high = high * cosines + low * sines;
        low = turned;
      }
    }
  });
}

void BlockAttention::run(const BlockWeights& weights) {
  o_ = weights.o;
  q_ = times_transposed(context_, inputs_, weights.q);
  k_ = times_transposed(context_, inputs_, weights.k);
  v_ = times_transposed(context_, inputs_, weights.v);
  rotate(q_, false);
  q_ *= scale_;
  rotate(k_, false);
  attended_.resize(q_.rows(), q_.cols());
  for_heads([&](int64_t window, int64_t h) { attend_head(window, h); });
}

void BlockAttention::attend_head(int64_t window, int64_t h) {
  const int64_t d = shape_.head_dim;
  const int64_t row = shape_.window_begin[static_cast<size_t>(window)];
  const int64_t n = shape_.window_begin[static_cast<size_t>(window) + 1] - row;
  const int64_t g = shape_.kv_head(h);
  Rows& all = probabilities_[static_cast<size_t>(window * shape_.q_heads() + h)];
  all.setZero(n, n);
  for (int64_t t = 0; t < n; t += piece) {
    const int64_t rows = std::min(piece, n - t);
    const int64_t end = t + rows;
    auto p = all.block(t, 0, rows, end);
    p.noalias() = q_.block(row + t, h * d, rows, d) * k_.block(row, g * d, end, d).transpose();
    causal_softmax(p, t, shape_.mask_window);
    attended_.block(row + t, h * d, rows, d).noalias() = p * v_.block(row, g * d, end, d);
  }
}

Rows BlockAttention::output() const { return times_transposed(context_, attended_, o_); }

void BlockAttention::head_tangent(int64_t window, int64_t h, const Projections& change,
                                  Rows& out) const {
  const int64_t d = shape_.head_dim;
  const int64_t row = shape_.window_begin[static_cast<size_t>(window)];
  const int64_t n = shape_.window_begin[static_cast<size_t>(window) + 1] - row;
  const int64_t g = shape_.kv_head(h);
  const Rows& all = probabilities_[static_cast<size_t>(window * shape_.q_heads() + h)];
  Rows scores;
  for (int64_t t = 0; t < n; t += piece) {
    const int64_t rows = std::min(piece, n - t);
    const int64_t end = t + rows;
    const auto p = all.block(t, 0, rows, end);
    scores.resize(rows, end);
    scores.noalias() =
        change.q.block(row + t, h * d, rows, d) * k_.block(row, g * d, end, d).transpose();
    scores.noalias() +=
        q_.block(row + t, h * d, rows, d) * change.k.block(row, g * d, end, d).transpose();
    scores.array() *= p.array();
    auto to = out.block(row + t, h * d, rows, d);
    to.noalias() = scores * v_.block(row, g * d, end, d);
    to.noalias() += p * change.v.block(row, g * d, end, d);
    const Eigen::VectorXf sums = scores.rowwise().sum();
    to.noalias() -= sums.asDiagonal() * attended_.block(row + t, h * d, rows, d);
  }
}

Rows BlockAttention::tangent(const BlockWeights& change) const {
  Projections by{times_transposed(context_, inputs_, change.q),
                 times_transposed(context_, inputs_, change.k),
                 times_transposed(context_, inputs_, change.v)};
  rotate(by.q, false);
  by.q *= scale_;
  rotate(by.k, false);
  Rows attended(attended_.rows(), attended_.cols());
  for_heads([&](int64_t window, int64_t h) { head_tangent(window, h, by, attended); });
  return times_transposed(context_, attended, o_) + times_transposed(context_, attended_, change.o);
}

/// by_keys and by_values have a column block per query head: heads of a group share no memory.
void BlockAttention::head_pullback(int64_t window, int64_t h, const Rows& by_attended,
                                   Projections& gradients, Rows& by_keys, Rows& by_values) const {
  const int64_t d = shape_.head_dim;
  const int64_t row = shape_.window_begin[static_cast<size_t>(window)];
  const int64_t n = shape_.window_begin[static_cast<size_t>(window) + 1] - row;
  const int64_t g = shape_.kv_head(h);
  const Rows& all = probabilities_[static_cast<size_t>(window * shape_.q_heads() + h)];
  auto keys = by_keys.block(row, h * d, n, d);
  auto values = by_values.block(row, h * d, n, d);
  keys.setZero();
  values.setZero();
  Rows scores;
  for (int64_t t = 0; t < n; t += piece) {
    const int64_t rows = std::min(piece, n - t);
    const int64_t end = t + rows;
    const auto p = all.block(t, 0, rows, end);
    const auto from = by_attended.block(row + t, h * d, rows, d);
    values.topRows(end).noalias() += p.transpose() * from;
    scores.resize(rows, end);
    scores.noalias() = from * v_.block(row, g * d, end, d).transpose();
    const Eigen::VectorXf sums =
        from.cwiseProduct(attended_.block(row + t, h * d, rows, d)).rowwise().sum();
    scores.colwise() -= sums;
    scores.array() *= p.array();
    gradients.q.block(row + t, h * d, rows, d).noalias() = scores * k_.block(row, g * d, end, d);
    keys.topRows(end).noalias() += scores.transpose() * q_.block(row + t, h * d, rows, d);
  }
}

BlockAttention::Projections BlockAttention::project_back(const Rows& cotangent) const {
  const Rows by_attended = times_transposed(context_, cotangent, o_.transpose());
  Projections gradients{Rows(q_.rows(), q_.cols()), Rows::Zero(k_.rows(), k_.cols()),
                        Rows::Zero(v_.rows(), v_.cols())};
  Rows by_keys(q_.rows(), q_.cols());
  Rows by_values(q_.rows(), q_.cols());
  for_heads([&](int64_t window, int64_t h) {
    head_pullback(window, h, by_attended, gradients, by_keys, by_values);
  });
  const int64_t d = shape_.head_dim;
  context_.pool.parallel_for(shape_.kv_heads(), [&](int64_t g, int) {
    const auto at = static_cast<size_t>(g);
    for (int64_t h = shape_.q_begin[at]; h < shape_.q_begin[at + 1]; ++h) {
      gradients.k.middleCols(g * d, d) += by_keys.middleCols(h * d, d);
      gradients.v.middleCols(g * d, d) += by_values.middleCols(h * d, d);
    }
  });
  gradients.q *= scale_;
  rotate(gradients.q, true);
  rotate(gradients.k, true);
  return gradients;
}

BlockWeights BlockAttention::pullback(const Rows& cotangent) const {
  const Projections by = project_back(cotangent);
  return {transposed_times(context_, by.q, inputs_), transposed_times(context_, by.k, inputs_),
          transposed_times(context_, by.v, inputs_),
          transposed_times(context_, cotangent, attended_)};
}

Matrix BlockAttention::key_moments(int64_t g) const {
  const Rows keys = k_.middleCols(g * shape_.head_dim, shape_.head_dim);
  return gram(context_, keys, keys) / static_cast<double>(keys.rows());
}

Matrix BlockAttention::averaged_moments(int64_t h) const {
  Rows averaged(inputs_.rows(), inputs_.cols());
  context_.pool.parallel_for(shape_.windows(), [&](int64_t window, int) {
    const int64_t row = shape_.window_begin[static_cast<size_t>(window)];
    const Rows& p = probabilities_[static_cast<size_t>(window * shape_.q_heads() + h)];
    averaged.middleRows(row, p.rows()).noalias() = p * inputs_.middleRows(row, p.rows());
  });
  Matrix moments = gram(context_, averaged, averaged);
  moments /= static_cast<double>(inputs_.rows());
  return moments;
}

}  // namespace gqa
