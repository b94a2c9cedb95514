// attend() beside the machine's ceilings.
#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "bench/approximation.h"
#include "bench/ceilings.h"
#include "bench/counting.h"
#include "bench/random_floats.h"
#include "bench/rotation.h"
#include "core/fail.h"
#include "gqa/attention.h"
#include "gqa/bench.h"
#include "kernels/context.h"

namespace gqa {

void bench::check(const AttentionBench& b, const BenchOptions& options) {
  const auto at_least_1 = [](const char* name, int64_t value) {
    require(value >= 1, "{} is {}, expected 1 or more", name, value);
  };
  at_least_1("q_heads", b.q_heads);
  at_least_1("kv_heads", b.kv_heads);
  at_least_1("head_dim", b.head_dim);
  at_least_1("v_head_dim", b.v_head_dim);
  at_least_1("kv_len", b.kv_len);
  at_least_1("q_len", b.q_len);
  require(b.q_heads % b.kv_heads == 0, "kv_heads is {}, expected a divisor of q_heads ({})",
          b.kv_heads, b.q_heads);
  require(b.q_len <= b.kv_len,
          "q_len is {}, expected at most kv_len ({}): the queries' own keys are among them",
          b.q_len, b.kv_len);
  require(b.window >= 0, "window is {}, expected 0 or more", b.window);
  require(b.softcap >= 0 && std::isfinite(b.softcap), "softcap is {}, expected 0 or more",
          b.softcap);
  require(options.repeats >= 0, "repeats is {}, expected 0 or more", options.repeats);
  if (std::holds_alternative<ExactAttention>(b.attention)) return;
  require(b.softcap == 0 && !b.sinks, "attention is {}, expected exact with a soft cap or sinks",
          attention_text(b.attention));
}

namespace {

/// The same random lump for every sequence: their values matter to no time.
bench::KvRows random_lump(const AttentionBench& b) {
  constexpr int64_t lump = 1024;
  const int64_t n = std::min(lump, b.kv_len);
  return {bench::random_floats(bench::product(n, b.kv_heads, b.head_dim)),
          bench::random_floats(bench::product(n, b.kv_heads, b.v_head_dim))};
}

/// Exact attention to caches that take turns, and the ceilings beside it.
class ExactCalls {
 public:
  ExactCalls(Context& context, const AttentionBench& b, const BenchOptions& options,
             const Progress& progress)
      : context_(context),
        bench_(b),
        lump_(random_lump(b)),
        caches_(
            context, b,
            std::vector<int64_t>(static_cast<size_t>(count_caches(b, options)), b.kv_len),
            [&](int64_t, int64_t) -> const bench::KvRows& { return lump_; }, progress),
        q_(b.q_len, b.q_heads, b.head_dim, bench::q_dtype(b)),
        out_(b.q_len, b.q_heads, b.v_head_dim, bench::q_dtype(b)),
        sinks_(static_cast<size_t>(b.sinks ? b.q_heads : 0), 0.5f),
        mask_{.window = b.window},
        seen_(bench::seen_keys(mask_, b.q_len, b.kv_len)),
        in_tiles_(b.kv_dtype == KvDType::bf16 &&
                  context.impl().kernels->takes_stored(KvDType::bf16)),
        ceilings_(context.impl().pool, options, in_tiles_) {
    const std::vector<float> q_row = bench::random_floats(b.q_heads * b.head_dim);
    for (int64_t t = 0; t < b.q_len; ++t) q_.set_row(*context.impl().kernels, t, q_row.data());
  }

  /// A call of attend() and one of reading, and of arithmetic when it is due. attend() comes
  /// straight after reading, so that the pool's threads are awake for both.
  void turn() {
    if (ceilings_.arithmetic_is_due(time_.wall_seconds())) ceilings_.time_arithmetic();
    const PackedKv to_read = caches_.view(next_++);
    const AttendItem item{.q = q_.view(0, bench_.q_len),
                          .kv = caches_.view(next_++),
                          .out = out_.mut_view(bench_.q_len)};
    ceilings_.time_reading(to_read, seen_);
    const AttendOptions options{.mask = mask_, .softcap = bench_.softcap, .sinks = sinks_};
    time_.time([&] { attend(context_, std::span(&item, 1), options); });
  }

  /// A turn that does not count.
  void warm_up() {
    turn();
    time_.clear();
    ceilings_.clear();
  }

  const bench::Timing& time() const { return time_; }

  AttentionBenchResult result(int repeats) const {
    const AttentionBench& b = bench_;
    AttentionBenchResult result;
    result.ms = time_.ms();
    result.kv_bytes = bench::count_keys(seen_) * b.kv_heads * bench::kv_bytes(b);
    result.gb_per_s = {bench::giga_per_s(static_cast<double>(result.kv_bytes), time_),
                       ceilings_.gb_per_s()};
    const int64_t pairs = bench::visible_pairs(mask_, b.q_len, b.kv_len);
    result.gflop_per_s = {
        bench::giga_per_s(bench::attention_flop(b.q_heads, b.head_dim, b.v_head_dim, pairs), time_),
        ceilings_.gflop_per_s()};
    result.gemm = in_tiles_ ? DType::bf16 : DType::f32;
    result.peak_gflop_per_s = ceilings_.peak_gflop_per_s();
    const bench::Timing* const timed = &time_;
    result.cpu_fraction = bench::cpu_fraction(std::span(&timed, 1), context_.threads());
    result.repeats = repeats;
    result.caches = caches_.count();
    result.rotated_bytes = caches_.bytes();
    return result;
  }

 private:
  static int64_t count_caches(const AttentionBench& b, const BenchOptions& options) {
    const int64_t dims = checked_add(b.head_dim, b.v_head_dim).value_or(INT64_MAX);
    const int64_t row_bytes =
        bench::product(b.q_len, b.q_heads, dims, dtype_bytes(bench::q_dtype(b)));
    return bench::count_caches(b, options, 2, row_bytes);
  }

  Context& context_;
  const AttentionBench bench_;
  const bench::KvRows lump_;
  bench::Rotation caches_;
  bench::Array q_, out_;
  const std::vector<float> sinks_;
  const Mask mask_;
  const std::vector<KeyRange> seen_;
  /// Integers that are multiplied as such have no ceiling of their own.
  const bool in_tiles_;
  bench::Ceilings ceilings_;
  bench::Timing time_;
  int64_t next_ = 0;  ///< the cache that was left alone for longest
};

AttentionBenchResult bench_exact(Context& context, const AttentionBench& b,
                                 const BenchOptions& options, const Progress& progress) {
  ExactCalls calls(context, b, options, progress);
  calls.warm_up();
  bench::Turns turns(options.repeats, progress);
  while (turns.next()) calls.turn();
  return calls.result(turns.done());
}

}  // namespace

AttentionBenchResult bench_attention(Context& context, const AttentionBench& b,
                                     const BenchOptions& options, const Progress& progress) {
  bench::check(b, options);
  if (std::holds_alternative<ExactAttention>(b.attention)) {
    return bench_exact(context, b, options, progress);
  }
  return bench::bench_approximation(context, b, options, progress);
}

BesideBenchResult bench_beside(Context& context, const AttentionBench& b,
                               const AttentionBench& other, const BenchOptions& options,
                               const Progress& progress) {
  for (const AttentionBench* each : {&b, &other}) {
    bench::check(*each, options);
    require(std::holds_alternative<ExactAttention>(each->attention),
            "attention is {}, expected exact beside another configuration",
            attention_text(each->attention));
  }
  BenchOptions half = options;
  half.memory_bytes /= 2;
  ExactCalls one(context, b, half, progress);
  ExactCalls two(context, other, half, progress);
  std::array<ExactCalls*, 2> order{&one, &two};
  for (ExactCalls* calls : order) calls->warm_up();
  std::vector<double> quotients;
  bench::Turns turns(options.repeats, progress);
  while (turns.next()) {
    for (ExactCalls* calls : order) calls->turn();
    // What drifts, and what the one leaves behind for the other, falls on both.
    std::swap(order[0], order[1]);
    quotients.push_back(two.time().last_seconds() / one.time().last_seconds());
  }
  return {one.result(turns.done()), two.result(turns.done()), bench::median(quotients)};
}

}  // namespace gqa
