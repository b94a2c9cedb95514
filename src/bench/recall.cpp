#include "gqa/recall.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "bench/approx_tally.h"
#include "bench/haystack.h"
#include "core/fail.h"
#include "gqa/approx.h"
#include "gqa/attention.h"
#include "kernels/context.h"

namespace gqa {
namespace {

constexpr int64_t least_head_dim = 16;

void check(const RecallBench& b) {
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    require(value >= least, "{} is {}, expected {} or more", name, value, least);
  };
  at_least("q_heads", b.q_heads, 1);
  at_least("kv_heads", b.kv_heads, 1);
  at_least("head_dim", b.head_dim, least_head_dim);
  at_least("needles", b.needles, 1);
  at_least("queries", b.queries, 1);
  at_least("trials", b.trials, 1);
  require(b.q_heads % b.kv_heads == 0, "kv_heads is {}, expected a divisor of q_heads ({})",
          b.kv_heads, b.q_heads);
  // Also the largest number of tokens of which a needle's index is kept.
  require(b.kv_len <= std::numeric_limits<int32_t>::max(), "kv_len is {}, expected at most {}",
          b.kv_len, std::numeric_limits<int32_t>::max());
  require(b.queries < b.kv_len - 1, "queries is {}, expected less than kv_len ({}) by 2 or more",
          b.queries, b.kv_len);
  require(b.needles <= b.kv_len - b.queries - 1,
          "needles is {}, expected at most {}: tokens before the first query, but the first token",
          b.needles, b.kv_len - b.queries - 1);
}

/// Sums over queries and heads.
struct Sums {
  double recalled = 0;
  double exactly_recalled = 0;
  double mass = 0;
};

/// A context and the queries at its end.
class Trial {
 public:
  Trial(Context& context, const RecallBench& b, int64_t trial)
      : context_(context),
        b_(b),
        haystack_(b, trial),
        cache_({{b.kv_heads}, b.head_dim, b.head_dim, b.kv_dtype}),
        sequence_(cache_.create()),
        approximation_(b.attention, cache_.shape(), haystack_.directions()),
        out_(static_cast<size_t>(b.q_heads * b.head_dim)),
        exact_out_(out_.size()),
        lse_(static_cast<size_t>(b.q_heads)) {
    constexpr int64_t lump = 1024;
    const int64_t before = b.kv_len - b.queries;
    for (int64_t at = 0; at < before; at += lump) append(std::min(lump, before - at));
  }

  /// The next token comes and asks.
  void ask(Sums& sums) {
    append(1);
    const std::vector<float>& q = haystack_.query(context_.impl().pool);
    const AnyView<3> q_view{q.data(), DType::f32, {1, b_.q_heads, b_.head_dim}};
    const Approximation::Item item{.sequence = sequence_, .q = q_view, .out = view(out_)};
    approximation_.attend(context_, cache_, 0, std::span(&item, 1), Approximation::Options{});
    const AttendItem exact{.q = q_view,
                           .kv = cache_.view(sequence_, 0),
                           .out = view(exact_out_),
                           .lse = {lse_.data(), DType::f32, {1, b_.q_heads}}};
    attend(context_, std::span(&exact, 1));
    for (int64_t h = 0; h < b_.q_heads; ++h) judge(h, q, sums);
  }

  /// What all its queries have read.
  void count(bench::ApproxTally& tally) const { tally.add(approximation_.stats()); }

 private:
  void append(int64_t n) {
    const bench::KvRows& rows = haystack_.tokens(context_.impl().pool, n);
    const std::array<int64_t, 3> shape{n, b_.kv_heads, b_.head_dim};
    cache_.append(context_, sequence_, 0, {rows.k.data(), DType::f32, shape},
                  {rows.v.data(), DType::f32, shape});
  }

  AnyMutView<3> view(std::vector<float>& out) const {
    return {out.data(), DType::f32, {1, b_.q_heads, b_.head_dim}};
  }

  void judge(int64_t h, const std::vector<float>& q, Sums& sums) {
    const int64_t g = h / (b_.q_heads / b_.kv_heads);
    const int64_t target = haystack_.target(h);
    const float* const code = haystack_.code(g, target);
    const auto recalls = [&](const std::vector<float>& out) {
      return haystack_.nearest(g, out.data() + h * b_.head_dim) == code;
    };
    sums.recalled += recalls(out_) ? 1 : 0;
    sums.exactly_recalled += recalls(exact_out_) ? 1 : 0;
    sums.mass += mass(g, haystack_.position(g, target), q.data() + h * b_.head_dim, lse_[h]);
  }

  /// Attention of a query to a key.
  double mass(int64_t g, int64_t position, const float* q, float lse) {
    std::vector<float>& k = key_;
    std::vector<float>& v = value_;
    k.resize(static_cast<size_t>(b_.kv_heads * b_.head_dim));
    v.resize(k.size());
    cache_.read(sequence_, 0, position, 1, k.data(), v.data());
    const double product = std::inner_product(q, q + b_.head_dim, k.data() + g * b_.head_dim, 0.0);
    return std::exp(product / std::sqrt(static_cast<double>(b_.head_dim)) - lse);
  }

  Context& context_;
  const RecallBench& b_;
  bench::Haystack haystack_;
  KvCache cache_;
  const int64_t sequence_;
  Approximation approximation_;
  std::vector<float> out_;        ///< [q_heads, head_dim]
  std::vector<float> exact_out_;  ///< [q_heads, head_dim]
  std::vector<float> lse_;        ///< [q_heads], of exact attention
  std::vector<float> key_;        ///< [kv_heads, head_dim]
  std::vector<float> value_;      ///< [kv_heads, head_dim]
};

}  // namespace

RecallResult bench_recall(Context& context, const RecallBench& b, const Progress& progress) {
  check(b);
  Sums sums;
  bench::ApproxTally tally;
  for (int64_t t = 0; t < b.trials; ++t) {
    Trial trial(context, b, t);
    for (int64_t i = 0; i < b.queries; ++i) {
      if (progress) progress("recall", t * b.queries + i, b.trials * b.queries);
      trial.ask(sums);
    }
    trial.count(tally);
  }
  const auto asked = static_cast<double>(b.trials * b.queries * b.q_heads);
  return {.recall = sums.recalled / asked,
          .exact_recall = sums.exactly_recalled / asked,
          .needle_mass = sums.mass / asked,
          .chance = 1.0 / static_cast<double>(bench::Haystack::codes),
          .shares = tally.shares()};
}

}  // namespace gqa
