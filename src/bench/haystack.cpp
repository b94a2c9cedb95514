#include "bench/haystack.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

namespace gqa::bench {
namespace {

constexpr float leading_energy = 0.64f;  ///< of ordinary keys
constexpr float kept = 0.97f;            ///< of a walk, from one token to the next
constexpr float wandering = 0.6f;        ///< standard deviation of scores of a query's walk
constexpr float noise = 0.4f;            ///< and of its noise
constexpr float needle_mass = 0.7f;
/// The first token's share of attention, over that of all ordinary keys.
constexpr float sink_odds = 0.5f;
/// Tokens during which a head looks for the same needle.
constexpr int64_t dwell = 4;

float dot(const float* a, const float* b, int64_t n) {
  return std::inner_product(a, a + n, b, 0.0f);
}

void add(float factor, const float* x, int64_t n, float* to) {
  for (int64_t d = 0; d < n; ++d) to[d] += factor * x[d];
}

void normalise(float* x, int64_t n, float norm) {
  const float factor = norm / std::sqrt(dot(x, x, n));
  for (int64_t d = 0; d < n; ++d) x[d] *= factor;
}

void draw(Random& random, std::span<float> x) {
  for (float& value : x) value = static_cast<float>(random.normal());
}

/// Takes the part along rows [0, n) of orthonormal axes away.
void project_out(const std::vector<float>& axes, int64_t n, int64_t dim, float* x) {
  for (int64_t i = 0; i < n; ++i) {
    add(-dot(axes.data() + i * dim, x, dim), axes.data() + i * dim, dim, x);
  }
}

std::vector<float> random_axes(Random& random, int64_t dim) {
  std::vector<float> axes(static_cast<size_t>(dim * dim));
  draw(random, axes);
  for (int64_t i = 0; i < dim; ++i) {
    // Twice: the first time leaves what rounding does to nearly parallel vectors.
    for (int pass = 0; pass < 2; ++pass) project_out(axes, i, dim, axes.data() + i * dim);
    normalise(axes.data() + i * dim, dim, 1);
  }
  return axes;
}

/// n different numbers in [low, high), in random order.
std::vector<int64_t> draw_positions(Random& random, int64_t low, int64_t high, int64_t n) {
  std::vector<int64_t> all(static_cast<size_t>(high - low));
  std::iota(all.begin(), all.end(), low);
  for (int64_t i = 0; i < n; ++i) {
    const auto left = static_cast<uint64_t>(std::ssize(all) - i);
    std::swap(all[i], all[i + static_cast<int64_t>(random.below(left))]);
  }
  all.resize(static_cast<size_t>(n));
  return all;
}

void step(Random& random, std::span<float> walk) {
  const float fresh = std::sqrt(1 - kept * kept);
  for (float& x : walk) x = kept * x + fresh * static_cast<float>(random.normal());
}

/// Energy of leading direction j, of `leading` that share it as 1, 1/2, 1/3, ...
float energy(int64_t j, int64_t leading, int64_t dim) {
  float sum = 0;
  for (int64_t i = 0; i < leading; ++i) sum += 1 / static_cast<float>(i + 1);
  return leading_energy * static_cast<float>(dim) / static_cast<float>(j + 1) / sum;
}

}  // namespace

Haystack::Haystack(const RecallBench& bench, int64_t trial)
    : bench_(bench),
      leading_(std::min<int64_t>(8, bench.head_dim / 8)),
      aim_(aim()),
      sink_(sink()) {
  for (int64_t g = 0; g < bench.kv_heads; ++g) heads_.push_back(make_head(trial, g));
}

/// Ordinary scores are nearly normal, of variance s: exp() of n of them comes to n * exp(s / 2).
/// The needle's score is aim * sqrt(head_dim) beyond, and s has a part aim^2 * (1 -
/// leading_energy): the smaller solution of a quadratic equation.
float Haystack::aim() const {
  const auto n = static_cast<double>(bench_.kv_len);
  const double odds = needle_mass / (1 - needle_mass) * (1 + sink_odds);
  const double c = std::log(n * odds) + (wandering * wandering + noise * noise) / 2;
  const double a = (1 - leading_energy) / 2;
  const double b = std::sqrt(static_cast<double>(bench_.head_dim));
  const double root = std::sqrt(std::max(0.0, b * b - 4 * a * c));
  return static_cast<float>((b - root) / (2 * a));
}

/// So that the first token has sink_odds times what all ordinary keys have.
float Haystack::sink() const {
  const auto n = static_cast<double>(bench_.kv_len);
  const double s = aim_ * aim_ * (1 - leading_energy) + wandering * wandering + noise * noise;
  return static_cast<float>((std::log(n * sink_odds) + s / 2) /
                            std::sqrt(static_cast<double>(bench_.head_dim)));
}

Haystack::Head Haystack::make_head(int64_t trial, int64_t g) const {
  const int64_t dim = bench_.head_dim;
  const int64_t group = bench_.q_heads / bench_.kv_heads;
  const int64_t stream = 2 * (trial * bench_.kv_heads + g);
  Head head{.random = Random(bench_.seed, RandomUse::haystack, stream),
            .queries = Random(bench_.seed, RandomUse::haystack, stream + 1)};
  head.axes = random_axes(head.random, dim);
  head.walk.resize(static_cast<size_t>(leading_));
  head.values.resize(static_cast<size_t>(dim));
  head.q_walk.resize(static_cast<size_t>(group * leading_));
  head.codes.resize(static_cast<size_t>(codes * dim));
  for (std::vector<float>* drawn : {&head.walk, &head.values, &head.codes}) {
    draw(head.random, *drawn);
  }
  draw(head.queries, head.q_walk);
  for (int64_t c = 0; c < codes; ++c) {
    normalise(head.codes.data() + c * dim, dim, std::sqrt(static_cast<float>(dim)));
  }
  hide_needles(head);
  return head;
}

void Haystack::hide_needles(Head& head) const {
  const int64_t dim = bench_.head_dim;
  head.positions = draw_positions(head.random, 1, bench_.kv_len - bench_.queries, bench_.needles);
  head.needle_at.assign(static_cast<size_t>(bench_.kv_len), -1);
  head.needles.resize(static_cast<size_t>(bench_.needles * dim));
  draw(head.random, head.needles);
  for (int64_t m = 0; m < bench_.needles; ++m) {
    // The leading directions are everybody's, and the next one is the first token's.
    float* const needle = head.needles.data() + m * dim;
    project_out(head.axes, leading_ + 1, dim, needle);
    normalise(needle, dim, 1);
    head.code.push_back(static_cast<int64_t>(head.random.below(codes)));
    head.targets.push_back(m);
    head.needle_at[head.positions[m]] = static_cast<int32_t>(m);
  }
}

void Haystack::next_token(Head& head, int64_t at, float* k, float* v) const {
  const int64_t dim = bench_.head_dim;
  const float* const sink = head.axes.data() + leading_ * dim;
  for (int64_t d = 0; d < dim; ++d) {
    k[d] = std::sqrt(1 - leading_energy) * static_cast<float>(head.random.normal());
  }
  step(head.random, head.walk);
  for (int64_t j = 0; j < leading_; ++j) {
    add(head.walk[j] * std::sqrt(energy(j, leading_, dim)), head.axes.data() + j * dim, dim, k);
  }
  // Only the first token has anything in the direction that all queries share.
  const float norm = std::sqrt(static_cast<float>(dim));
  add((at == 0 ? norm : 0) - dot(sink, k, dim), sink, dim, k);
  step(head.random, head.values);
  std::copy(head.values.begin(), head.values.end(), v);
  if (at == 0) std::fill(v, v + dim, 0.0f);
  const int64_t m = head.needle_at[at];
  if (m < 0) return;
  add(norm, head.needles.data() + m * dim, dim, k);
  std::copy_n(head.codes.data() + head.code[m] * dim, dim, v);
}

const KvRows& Haystack::tokens(ThreadPool& pool, int64_t n) {
  const int64_t dim = bench_.head_dim;
  rows_.k.resize(static_cast<size_t>(n * bench_.kv_heads * dim));
  rows_.v.resize(rows_.k.size());
  pool.parallel_for(bench_.kv_heads, [&](int64_t g, int) {
    for (int64_t t = 0; t < n; ++t) {
      const int64_t row = (t * bench_.kv_heads + g) * dim;
      next_token(heads_[g], at_ + t, rows_.k.data() + row, rows_.v.data() + row);
    }
  });
  at_ += n;
  return rows_;
}

void Haystack::next_queries(Head& head, float* q) const {
  const int64_t dim = bench_.head_dim;
  const auto scale = static_cast<float>(std::sqrt(static_cast<double>(dim)));
  if (asked_ % dwell == 0) {
    for (int64_t m = bench_.needles; m > 1; --m) {
      std::swap(head.targets[m - 1], head.targets[head.queries.below(static_cast<uint64_t>(m))]);
    }
  }
  step(head.queries, head.q_walk);
  const int64_t group = bench_.q_heads / bench_.kv_heads;
  for (int64_t i = 0; i < group; ++i) {
    float* const row = q + i * dim;
    for (int64_t d = 0; d < dim; ++d) {
      row[d] = noise * static_cast<float>(head.queries.normal());
    }
    for (int64_t j = 0; j < leading_; ++j) {
      // Divided by what keys have there, so that each direction gives an equal part of the scores.
      const float part =
          wandering * scale / std::sqrt(energy(j, leading_, dim) * static_cast<float>(leading_));
      add(part * head.q_walk[i * leading_ + j], head.axes.data() + j * dim, dim, row);
    }
    const int64_t target = head.targets[i % bench_.needles];
    add(aim_ * scale, head.needles.data() + target * dim, dim, row);
    const float* const sink = head.axes.data() + leading_ * dim;
    add(sink_ * scale - dot(sink, row, dim), sink, dim, row);
  }
}

const std::vector<float>& Haystack::query(ThreadPool& pool) {
  const int64_t group = bench_.q_heads / bench_.kv_heads;
  q_.resize(static_cast<size_t>(bench_.q_heads * bench_.head_dim));
  pool.parallel_for(bench_.kv_heads, [&](int64_t g, int) {
    next_queries(heads_[g], q_.data() + g * group * bench_.head_dim);
  });
  ++asked_;
  return q_;
}

int64_t Haystack::target(int64_t q_head) const {
  const int64_t group = bench_.q_heads / bench_.kv_heads;
  return heads_[q_head / group].targets[q_head % group % bench_.needles];
}

const float* Haystack::code(int64_t kv_head, int64_t m) const {
  const Head& head = heads_[kv_head];
  return head.codes.data() + head.code[m] * bench_.head_dim;
}

const float* Haystack::nearest(int64_t kv_head, const float* output) const {
  const int64_t dim = bench_.head_dim;
  const float* const first = heads_[kv_head].codes.data();
  const float* best = first;
  for (int64_t c = 1; c < codes; ++c) {
    // All codes have the same norm.
    if (dot(first + c * dim, output, dim) > dot(best, output, dim)) best = first + c * dim;
  }
  return best;
}

KeyDirections Haystack::directions() const {
  std::vector<float> layer;
  for (const Head& head : heads_) layer.insert(layer.end(), head.axes.begin(), head.axes.end());
  return {{std::move(layer)}};
}

}  // namespace gqa::bench
