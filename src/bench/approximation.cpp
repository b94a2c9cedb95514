#include "bench/approximation.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "bench/approx_tally.h"
#include "bench/ceilings.h"
#include "bench/counting.h"
#include "bench/drifting.h"
#include "bench/rotation.h"
#include "bench/turn_plan.h"
#include "bench/turn_timing.h"
#include "gqa/approx.h"
#include "gqa/attention.h"
#include "kernels/context.h"

namespace gqa::bench {
namespace {

/// Between a sequence's turns at either kind of attention lie two whole caches at least.
constexpr int64_t least_caches = 4;
/// Calls of the turn that warms up and compares outputs.
constexpr int64_t first_calls = 64;
/// Scores have this standard deviation: attention has favourites.
constexpr float query_scale = 2;

/// The principal directions of drifting keys: the axes, in order.
KeyDirections axes(const AttentionBench& b) {
  std::vector<float> layer(product(b.kv_heads, b.head_dim, b.head_dim));
  for (int64_t i = 0; i < b.kv_heads * b.head_dim; ++i) {
    layer[i * b.head_dim + i % b.head_dim] = 1;
  }
  return {{std::move(layer)}};
}

int64_t most_known(const TurnPlan& plan) { return std::max<int64_t>(1, plan.segment); }

/// Query rows: of the last positions, all that are ever asked for.
int64_t query_rows(const TurnPlan& plan) {
  return std::min(plan.kv_len, plan.calls - 1 + plan.q_len + most_known(plan));
}

int64_t out_rows(const TurnPlan& plan) {
  return std::max(plan.q_len, std::min(plan.kv_len, most_known(plan)));
}

int64_t row_bytes(const AttentionBench& b, const TurnPlan& plan) {
  const int64_t element = dtype_bytes(q_dtype(b));
  const std::array<int64_t, 4> parts{
      product(query_rows(plan), b.q_heads, b.head_dim, element),
      product(out_rows(plan), b.q_heads, b.v_head_dim, element),
      product(b.q_len, b.q_heads, b.v_head_dim, element),
      product(plan.grows ? plan.calls : 0, b.q_len, b.kv_heads,
              checked_add(b.head_dim, b.v_head_dim).value_or(INT64_MAX), sizeof(float))};
  std::optional<int64_t> sum = 0;
  for (const int64_t part : parts) {
    if (sum) sum = checked_add(*sum, part);
  }
  return sum.value_or(INT64_MAX);
}

TurnPlan plan_caches(const AttentionBench& b, const BenchOptions& options) {
  TurnPlan plan = plan_turns(b);
  plan.sequences = count_caches(b, options, least_caches, row_bytes(b, plan));
  return plan;
}

/// Tokens that each sequence holds at its turn's end: at most kv_len.
std::vector<int64_t> full_lens(const TurnPlan& plan) {
  std::vector<int64_t> lens;
  for (int64_t i = 0; i < plan.sequences; ++i) {
    lens.push_back(plan.begin(i) + plan.steps(i) * plan.q_len);
  }
  return lens;
}

/// Keys that every sequence of the rotation has, whose reading is the ceiling; for masks, which
/// leave nothing behind, all that a call sees.
std::vector<KeyRange> common_keys(const AttentionBench& b, const Mask& mask, const TurnPlan& plan) {
  const std::vector<int64_t> lens = full_lens(plan);
  return seen_keys(mask, b.q_len, *std::min_element(lens.begin(), lens.end()));
}

/// The approximation and exact attention on caches that take turns.
class Bench {
 public:
  Bench(Context& context, const AttentionBench& b, const BenchOptions& options,
        const Progress& progress)
      : context_(context),
        b_(b),
        plan_(plan_caches(b, options)),
        mask_(Approximation::as_mask(b.attention, model_mask())),
        approximation_(b.attention, kv_shape(b),
                       std::holds_alternative<LowRank>(b.attention) ? axes(b) : KeyDirections{}),
        caches_(context, b, full_lens(plan_), tokens(), progress),
        q_(query_rows(plan_), b.q_heads, b.head_dim, q_dtype(b)),
        out_(out_rows(plan_), b.q_heads, b.v_head_dim, q_dtype(b)),
        exact_out_(b.q_len, b.q_heads, b.v_head_dim, q_dtype(b)),
        seen_(common_keys(b, mask_.value_or(model_mask()), plan_)),
        ceilings_(context.impl().pool, options) {
    fill_queries();
  }

  /// first: warms up, compares outputs, and does not count.
  void turn(bool first) {
    ceilings_.time_arithmetic();
    ceilings_.time_reading(caches_.view(at_ + plan_.sequences - 1), seen_);
    rewind();
    approximation_.reset_stats();
    const int64_t calls = first ? std::min(first_calls, plan_.calls) : plan_.calls;
    for (int64_t c = 0; c < plan_.calls; ++c) {
      const int64_t i = at_ + c;
      if (plan_.grows) append(c);
      if (c >= calls) continue;
      approximate_.time([&] { approximate(i, b_.q_len); });
      if (first) compare(i);
      exact_.time([&] { attend_exactly(i + plan_.sequences - plan_.sequences / 2); });
    }
    end_turn(first);
    at_ = (at_ + plan_.visited()) % plan_.sequences;
  }

  AttentionBenchResult result(int repeats) const {
    AttentionBenchResult result;
    const auto calls = static_cast<double>(plan_.calls * repeats);
    result.ms = approximate_.ms();
    const ApproxStats& read = tally_.total();
    result.kv_bytes = mask_ ? count_keys(seen_) * b_.kv_heads * kv_bytes(b_)
                            : std::llround(read.bytes_read / calls);
    result.gb_per_s = {approximate_.giga_per_s(static_cast<double>(result.kv_bytes)),
                       ceilings_.gb_per_s()};
    const int64_t pairs = std::llround(read.keys_read / calls / static_cast<double>(b_.kv_heads));
    result.gflop_per_s = {
        approximate_.giga_per_s(attention_flop(b_.q_heads, b_.head_dim, b_.v_head_dim, pairs)),
        ceilings_.gflop_per_s()};
    result.peak_gflop_per_s = ceilings_.peak_gflop_per_s();
    const Timing* const timed = &approximate_.calls();
    result.cpu_fraction = cpu_fraction(std::span(&timed, 1), context_.threads());
    result.repeats = repeats;
    result.caches = caches_.count();
    result.rotated_bytes = caches_.bytes();
    result.approximation = {.exact_ms = exact_.ms(),
                            .speedup = exact_.ms().median / result.ms.median,
                            .shares = tally_.shares(),
                            .output_error = error_.value()};
    return result;
  }

 private:
  Mask model_mask() const { return {.window = b_.window}; }

  /// Keys and values of each sequence, of its own.
  Rotation::Tokens tokens() {
    return [this, sequence = int64_t{-1}, k = DriftingRows(0, 0, 1, Energy::even),
            v = DriftingRows(0, 0, 1, Energy::even),
            rows = KvRows()](int64_t i, int64_t n) mutable -> const KvRows& {
      if (i != sequence) {
        k = DriftingRows(2 * i + 1, b_.kv_heads, b_.head_dim, Energy::leading);
        v = DriftingRows(2 * i + 2, b_.kv_heads, b_.v_head_dim, Energy::even);
        sequence = i;
      }
      rows.k.resize(static_cast<size_t>(n * b_.kv_heads * b_.head_dim));
      rows.v.resize(static_cast<size_t>(n * b_.kv_heads * b_.v_head_dim));
      k.next(context_.impl().pool, n, rows.k.data());
      v.next(context_.impl().pool, n, rows.v.data());
      return rows;
    };
  }

  void fill_queries() {
    DriftingRows rows(0, b_.q_heads, b_.head_dim, Energy::even, query_scale);
    std::vector<float> row(static_cast<size_t>(b_.q_heads * b_.head_dim));
    for (int64_t t = 0; t < q_.rows(); ++t) {
      rows.next(context_.impl().pool, 1, row.data());
      q_.set_row(*context_.impl().kernels, t, row.data());
    }
  }

  /// Queries of the last n tokens of a sequence of this length.
  AnyView<3> queries(int64_t len, int64_t n) const {
    return q_.view(q_.rows() - (b_.kv_len - len) - n, n);
  }

  /// Takes the turn's sequences back to where they begin and makes what is known there.
  void rewind() {
    if (!plan_.grows) return;
    KvCache& cache = caches_.cache();
    kept_.resize(static_cast<size_t>(plan_.visited()));
    for (int64_t c = 0; c < plan_.visited(); ++c) {
      const int64_t i = (at_ + c) % plan_.sequences;
      const int64_t begin = plan_.begin(i);
      const int64_t n = plan_.steps(i) * b_.q_len;
      KvRows& rows = kept_[c];
      rows.k.resize(static_cast<size_t>(n * b_.kv_heads * b_.head_dim));
      rows.v.resize(static_cast<size_t>(n * b_.kv_heads * b_.v_head_dim));
      cache.read(caches_.id(i), 0, begin, n, rows.k.data(), rows.v.data());
      cache.truncate(caches_.id(i), begin);
      if (const int64_t known = plan_.known_queries(i); known > 0) approximate(i, known);
    }
  }

  /// The tokens of a call of this turn.
  void append(int64_t call) {
    const int64_t c = call % plan_.visited();
    const int64_t step = call / plan_.visited();
    caches_.append(context_, at_ + c, kept_[c], step * b_.q_len, b_.q_len);
  }

  void approximate(int64_t i, int64_t n) {
    const KvCache& cache = caches_.cache();
    const int64_t len = cache.len(caches_.id(i));
    const Approximation::Item item{
        .sequence = caches_.id(i), .q = queries(len, n), .out = out_.mut_view(n)};
    const Approximation::Options options{.window = b_.window};
    approximation_.attend(context_, cache, 0, std::span(&item, 1), options);
  }

  void attend_exactly(int64_t i) {
    const PackedKv kv = caches_.view(i);
    const AttendItem item{
        .q = queries(kv.len(), b_.q_len), .kv = kv, .out = exact_out_.mut_view(b_.q_len)};
    attend(context_, std::span(&item, 1), {.mask = model_mask()});
  }

  void compare(int64_t i) {
    attend_exactly(i);
    error_.add(out_.mut_view(b_.q_len), exact_out_.mut_view(b_.q_len));
  }

  void end_turn(bool first) {
    if (first) {
      approximate_.clear();
      exact_.clear();
      ceilings_.clear();
      return;
    }
    approximate_.end_turn();
    exact_.end_turn();
    tally_.add(approximation_.stats());
  }

  Context& context_;
  const AttentionBench& b_;
  const TurnPlan plan_;
  const std::optional<Mask> mask_;
  Approximation approximation_;
  Rotation caches_;
  Array q_;
  Array out_;
  Array exact_out_;
  const std::vector<KeyRange> seen_;
  Ceilings ceilings_;
  TurnTiming approximate_;
  TurnTiming exact_;
  ApproxTally tally_;
  OutputError error_;
  std::vector<KvRows> kept_;  ///< later tokens of the turn's sequences
  int64_t at_ = 0;            ///< the turn's first sequence
};

}  // namespace

AttentionBenchResult bench_approximation(Context& context, const AttentionBench& b,
                                         const BenchOptions& options, const Progress& progress) {
  Bench bench(context, b, options, progress);
  bench.turn(true);
  Turns turns(options.repeats, progress);
  while (turns.next()) bench.turn(false);
  return bench.result(turns.done());
}

}  // namespace gqa::bench
