// How approximations of attention are timed and counted; how fast anything is, no test says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "bench/approx_tally.h"
#include "bench/drifting.h"
#include "bench/turn_plan.h"
#include "gqa/bench.h"
#include "support/expect_error.h"

namespace gqa {
namespace {

using bench::DriftingRows;
using bench::Energy;
using bench::TurnPlan;

/// A ceiling that takes little time, on an emulated processor, too.
constexpr int64_t small_gemm = 64;

AttentionBench small(const AttentionSpec& attention, int64_t q_len = 1) {
  AttentionBench b;
  b.q_heads = 4;
  b.kv_heads = 2;
  b.head_dim = 16;
  b.v_head_dim = 8;
  b.kv_len = 100;
  b.q_len = q_len;
  b.attention = attention;
  return b;
}

/// Lengths at which the calls of a turn attend, by the caches' own turns.
std::multiset<int64_t> lengths(const TurnPlan& plan, int64_t first) {
  std::vector<int64_t> len(static_cast<size_t>(plan.sequences));
  for (int64_t i = 0; i < plan.sequences; ++i) len[i] = plan.begin(i);
  std::multiset<int64_t> seen;
  for (int64_t c = 0; c < plan.calls; ++c) {
    seen.insert(len[(first + c % plan.visited()) % plan.sequences] += plan.q_len);
  }
  for (int64_t c = 0; c < plan.visited(); ++c) {
    const int64_t i = (first + c) % plan.sequences;
    EXPECT_EQ(len[i], plan.begin(i) + plan.steps(i) * plan.q_len);
  }
  return seen;
}

TEST(TurnPlan, ATurnTakesEveryPositionOnce) {
  const auto check = [](AttentionBench b, int64_t kv_len, int64_t period) {
    b.kv_len = kv_len;
    std::multiset<int64_t> all;
    for (int64_t len = kv_len - period + 1; len <= kv_len; ++len) all.insert(len);
    for (const int64_t sequences : {1, 2, 3, 4, 7, 63, 64}) {
      TurnPlan plan = bench::plan_turns(b);
      plan.sequences = sequences;
      EXPECT_EQ(lengths(plan, 0), all) << sequences << " sequences, " << kv_len;
    }
  };
  check(small(TopPages{3}), 200, 64);
  check(small(TopMass{0.5}), 65, 64);
  check(small(TopPages{3}), 10, 9);
  check(small(TopPages{3}), 1, 1);
  check(small(Clustered{8, 0}), 5000, 128);
  check(small(DynamicGroups{0.1}), 70, 69);
  check(small(GlobalLocal{256, 256}), 1000, 256);
  check(small(GlobalLocal{256, 32}), 1000, 64);
  check(small(LowRank{8, 64}), 1000, 64);

  // More sequences than positions: they take turns.
  TurnPlan plan = bench::plan_turns(small(TopPages{3}));
  plan.sequences = 128;
  const std::multiset<int64_t> seen = lengths(plan, 0);
  EXPECT_EQ(seen, lengths(plan, 64));
  EXPECT_EQ(*seen.begin(), 100 - 63);
  EXPECT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), 64u);
}

TEST(TurnPlan, WhatIsKnownBeforeACall) {
  TurnPlan prompt = bench::plan_turns(small(Clustered{8, 0}, 100));
  prompt.sequences = 4;
  EXPECT_TRUE(prompt.grows);
  EXPECT_EQ(prompt.calls, 1);
  EXPECT_EQ(prompt.begin(3), 0);
  EXPECT_EQ(prompt.known_queries(3), 0);

  AttentionBench b = small(Clustered{8, 0});
  b.kv_len = 3000;
  TurnPlan decode = bench::plan_turns(b);
  decode.sequences = 2;
  EXPECT_EQ(decode.begin(0), 3000 - 128);
  EXPECT_EQ(decode.known_queries(0), 2872 - 22 * 128) << "since its segment began";
  EXPECT_EQ(decode.begin(1), 3000 - 64);
  EXPECT_EQ(decode.known_queries(1), 2936 - 22 * 128);
  b.attention = TopPages{3};
  decode = bench::plan_turns(b);
  decode.sequences = 2;
  EXPECT_EQ(decode.known_queries(1), 1) << "which makes the summaries";

  EXPECT_FALSE(bench::plan_turns(small(BlockLocal{8})).grows) << "masks keep nothing";
  EXPECT_EQ(bench::plan_turns(small(SlidingWindow{8})).calls, 1);
}

TEST(ApproxTally, SumsAndShares) {
  bench::ApproxTally tally;
  EXPECT_EQ(tally.shares().keys_read, 0);
  EXPECT_FALSE(tally.shares().chosen);
  ApproxStats stats{.tokens = 1,
                    .keys_visible = 100,
                    .keys_read = 10,
                    .bytes_visible = 1000,
                    .bytes_read = 300,
                    .select_seconds = 1,
                    .attend_seconds = 3,
                    .chosen = ApproxStats::Chosen{2, 1, 5}};
  tally.add(stats);
  stats.keys_read = 50;
  stats.chosen = ApproxStats::Chosen{4, 2, 9};
  tally.add(stats);
  const ApproxShares shares = tally.shares();
  EXPECT_DOUBLE_EQ(shares.keys_read, 60.0 / 200);
  EXPECT_DOUBLE_EQ(shares.kv_bytes, 0.3);
  EXPECT_DOUBLE_EQ(shares.select, 0.25);
  EXPECT_EQ(shares.chosen->mean, 3);
  EXPECT_EQ(shares.chosen->min, 1);
  EXPECT_EQ(shares.chosen->max, 9);
}

TEST(DriftingRows, ResembleTheirNeighboursWhateverTheThreads) {
  const int64_t n = 2000, heads = 2, dim = 32;
  const auto draw = [&](int64_t stream, int threads) {
    ThreadPool pool(threads);
    DriftingRows rows(stream, heads, dim, Energy::leading, 3);
    std::vector<float> x(static_cast<size_t>(n * heads * dim));
    rows.next(pool, 500, x.data());
    rows.next(pool, n - 500, x.data() + 500 * heads * dim);
    return x;
  };
  const std::vector<float> x = draw(1, 1);
  EXPECT_EQ(x, draw(1, 2));
  EXPECT_NE(x, draw(2, 1));
  const auto product = [&](int64_t apart) {
    double sum = 0;
    const int64_t end = std::ssize(x) - apart * heads * dim;
    for (int64_t i = 0; i < end; ++i) sum += double{x[i]} * x[i + apart * heads * dim];
    return sum / static_cast<double>(end);
  };
  EXPECT_NEAR(product(0), 9, 1.5);
  EXPECT_NEAR(product(1) / product(0), 0.8 * 0.97, 0.05);
  EXPECT_NEAR(product(500) / product(0), 0, 0.2);
  double first = 0, last = 0;
  for (int64_t i = 0; i < n * heads; ++i) {
    first += double{x[i * dim]} * x[i * dim];
    last += double{x[i * dim + dim - 1]} * x[i * dim + dim - 1];
  }
  EXPECT_GT(first, 2 * last);
}

TEST(ApproxBench, CountsWhatAMaskLeaves) {
  Context context({.threads = 1});
  const BenchOptions options{.repeats = 3, .rotate_bytes = 1, .gemm_size = small_gemm};
  const auto check = [&](const AttentionBench& b, double pairs, double exact_pairs, int64_t keys) {
    const AttentionBenchResult result = bench_attention(context, b, options);
    EXPECT_EQ(result.repeats, 3);
    EXPECT_EQ(result.caches, 4);
    EXPECT_EQ(result.kv_bytes, keys * 2 * (16 + 8) * 2);
    EXPECT_NEAR(result.gflop_per_s.value, 2 * 24 * 4 * pairs / result.ms.median / 1e6,
                1e-9 * result.gflop_per_s.value);
    const auto& beside = result.approximation.value();
    EXPECT_DOUBLE_EQ(beside.shares.keys_read, pairs / exact_pairs);
    EXPECT_DOUBLE_EQ(beside.shares.kv_bytes, pairs / exact_pairs);
    EXPECT_FALSE(beside.shares.chosen);
    EXPECT_LE(beside.exact_ms.min, beside.exact_ms.median);
    EXPECT_DOUBLE_EQ(beside.speedup, beside.exact_ms.median / result.ms.median);
    EXPECT_EQ(beside.output_error == 0, pairs == exact_pairs) << beside.output_error;
  };
  check(small(BlockLocal{30}), 10, 100, 10);
  check(small(SlidingWindow{30}), 30, 100, 30);
  check(small(BlockLocal{100}), 100, 100, 100);
  check(small(BlockLocal{30}, 100), 3 * 30 * 31 / 2 + 10 * 11 / 2, 100 * 101 / 2, 100);
  check(small(SlidingWindow{100}, 100), 100 * 101 / 2, 100 * 101 / 2, 100);
  // The model's own window is exact.
  AttentionBench windowed = small(SlidingWindow{30});
  windowed.window = 20;
  check(windowed, 20, 20, 20);
}

/// Three segments of queries, five pages of keys.
AttentionBenchResult run(const AttentionSpec& attention, int64_t q_len) {
  Context context({.threads = 2});
  AttentionBench b = small(attention, q_len);
  b.kv_len = 300;
  b.kv_dtype = KvDType::f32;
  return bench_attention(context, b, {.repeats = 1, .rotate_bytes = 1, .gemm_size = small_gemm});
}

/// In units of u = 2^-24: scores are chains of 16 multiply-adds, of at most 32 in all magnitudes,
/// sums over keys have 300 terms, and numerators and denominators carry both (attention_bound.h has
/// the terms); so do exact attention's. Weighted values are at most 4 times what is left of them.
constexpr double same = 4 * 2 * 2 * (40 * 32 + 2 * 303) * 0x1p-24;

TEST(ApproxBench, FullBudgetsAreExact) {
  for (const char* text :
       {"topk:5", "topp:1", "lowrank:3", "lowrank:16,300", "clustered:128", "clustered:1,5",
        "dynamic:0", "global-local:300,64", "global-local:1,1"}) {
    for (const int64_t q_len : {1, 290}) {
      const AttentionBenchResult result = run(parse_attention(text), q_len);
      EXPECT_LT(result.approximation->output_error, same) << text << ", " << q_len;
      EXPECT_GT(result.approximation->shares.kv_bytes, 0.9) << text << ", " << q_len;
    }
  }
}

TEST(ApproxBench, CountsWhatIsChosen) {
  const auto check = [](const char* text, int64_t q_len, int64_t low, int64_t high) {
    const AttentionBenchResult result = run(parse_attention(text), q_len);
    const ApproxBenchResult& beside = result.approximation.value();
    ASSERT_TRUE(beside.shares.chosen) << text;
    EXPECT_EQ(beside.shares.chosen->min, low) << text << ", " << q_len;
    EXPECT_EQ(beside.shares.chosen->max, high) << text << ", " << q_len;
    EXPECT_GE(beside.shares.chosen->mean, low);
    EXPECT_LE(beside.shares.chosen->mean, high);
    EXPECT_GT(beside.shares.keys_read, 0);
    EXPECT_LT(beside.shares.keys_read, 1);
    EXPECT_LT(beside.shares.keys_read, beside.shares.kv_bytes) << text << " reads to choose";
    EXPECT_GT(beside.shares.select, 0) << text;
    EXPECT_LT(beside.shares.select, 1) << text;
    EXPECT_GT(beside.output_error, 2 * same) << text << ", " << q_len;
    EXPECT_LT(beside.output_error, 1) << text << ", " << q_len;
  };
  check("topk:3", 1, 3, 3);
  check("topk:4", 290, 1, 4);
  check("lowrank:4,50", 1, 50, 50);
  check("lowrank:4,50", 290, 11, 50);  // the first query has 10 keys before it
  check("global-local:100,32", 1, 4, 6);
  check("global-local:100,32", 290, 0, 6);
}

TEST(ApproxBench, CountsGroups) {
  for (const int64_t q_len : {1, 300}) {
    const ApproxBenchResult clustered = *run(parse_attention("clustered:8"), q_len).approximation;
    ASSERT_TRUE(clustered.shares.chosen);
    EXPECT_EQ(clustered.shares.chosen->min, 8) << q_len;
    EXPECT_EQ(clustered.shares.chosen->max, 8) << q_len;
    EXPECT_GT(clustered.output_error, 2 * same);
    const ApproxBenchResult loose = *run(parse_attention("dynamic:2"), q_len).approximation;
    const ApproxBenchResult strict = *run(parse_attention("dynamic:0.5"), q_len).approximation;
    EXPECT_LT(loose.shares.chosen->mean, strict.shares.chosen->mean);
    EXPECT_LE(strict.shares.chosen->max, 128);
    EXPECT_GT(loose.output_error, strict.output_error);
    EXPECT_LT(loose.shares.keys_read, strict.shares.keys_read);
  }
  const ApproxBenchResult mass = *run(parse_attention("topp:0.5"), 1).approximation;
  EXPECT_GE(mass.shares.chosen->min, 3);
  EXPECT_LE(mass.shares.chosen->max, 5);
  EXPECT_LT(mass.shares.keys_read, 1);
}

TEST(ApproxBench, RefusesScoresThatOnlyExactAttentionHas) {
  Context context({.threads = 1});
  AttentionBench b = small(BlockLocal{30});
  b.sinks = true;
  test::expect_error(ErrorKind::usage, {"attention", "exact", "sinks"},
                     [&] { bench_attention(context, b, {.repeats = 1}); });
  b = small(BlockLocal{30});
  b.softcap = 2;
  test::expect_error(ErrorKind::usage, {"attention", "exact", "soft cap"},
                     [&] { bench_attention(context, b, {.repeats = 1}); });
}

}  // namespace
}  // namespace gqa
