// attend() beside the machine's ceilings.
#include <algorithm>
#include <cmath>
#include <span>
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

AttentionBenchResult bench_exact(Context& context, const AttentionBench& b,
                                 const BenchOptions& options, const Progress& progress) {
  const DType dtype = bench::q_dtype(b);
  const int64_t dims = checked_add(b.head_dim, b.v_head_dim).value_or(INT64_MAX);
  const int64_t row_bytes = bench::product(b.q_len, b.q_heads, dims, dtype_bytes(dtype));
  const int64_t count = bench::count_caches(b, options, 2, row_bytes);
  const bench::KvRows lump = random_lump(b);
  bench::Rotation caches(
      context, b, std::vector<int64_t>(static_cast<size_t>(count), b.kv_len),
      [&](int64_t, int64_t) -> const bench::KvRows& { return lump; }, progress);
  bench::Array q(b.q_len, b.q_heads, b.head_dim, dtype);
  bench::Array out(b.q_len, b.q_heads, b.v_head_dim, dtype);
  const std::vector<float> q_row = bench::random_floats(b.q_heads * b.head_dim);
  for (int64_t t = 0; t < b.q_len; ++t) q.set_row(*context.impl().kernels, t, q_row.data());
  const std::vector<float> sinks(static_cast<size_t>(b.sinks ? b.q_heads : 0), 0.5f);
  const AttendOptions attend_options{
      .mask = {.window = b.window}, .softcap = b.softcap, .sinks = sinks};
  const std::vector<KeyRange> seen = bench::seen_keys(attend_options.mask, b.q_len, b.kv_len);
  // Unless integers are multiplied as such: those have no ceiling of their own.
  const bool in_tiles =
      b.kv_dtype == KvDType::bf16 && context.impl().kernels->takes_stored(KvDType::bf16);
  bench::Ceilings ceilings(context.impl().pool, in_tiles);
  bench::Timing attend_time;
  int64_t next = 0;  // the cache that was left alone for longest
  // attend() comes straight after reading, so that the pool's threads are awake for both.
  const auto turn = [&] {
    if (ceilings.arithmetic_is_due(attend_time.wall_seconds())) ceilings.time_arithmetic();
    const PackedKv to_read = caches.view(next++);
    const AttendItem item{
        .q = q.view(0, b.q_len), .kv = caches.view(next++), .out = out.mut_view(b.q_len)};
    ceilings.time_reading(to_read, seen);
    attend_time.time([&] { attend(context, std::span(&item, 1), attend_options); });
  };
  turn();
  attend_time.clear();
  ceilings.clear();
  bench::Turns turns(options.repeats, progress);
  while (turns.next()) turn();

  AttentionBenchResult result;
  result.ms = attend_time.ms();
  result.kv_bytes = bench::count_keys(seen) * b.kv_heads * bench::kv_bytes(b);
  result.gb_per_s = {bench::giga_per_s(static_cast<double>(result.kv_bytes), attend_time),
                     ceilings.gb_per_s()};
  const int64_t pairs = bench::visible_pairs(attend_options.mask, b.q_len, b.kv_len);
  result.gflop_per_s = {
      bench::giga_per_s(bench::attention_flop(b.q_heads, b.head_dim, b.v_head_dim, pairs),
                        attend_time),
      ceilings.gflop_per_s()};
  result.gemm = in_tiles ? DType::bf16 : DType::f32;
  result.peak_gflop_per_s = ceilings.peak_gflop_per_s();
  const bench::Timing* const timed = &attend_time;
  result.cpu_fraction = bench::cpu_fraction(std::span(&timed, 1), context.threads());
  result.repeats = turns.done();
  result.caches = caches.count();
  result.rotated_bytes = caches.bytes();
  return result;
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

}  // namespace gqa
