// Needles in generated contexts: who finds them.
#include "gqa/recall.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "bench/haystack.h"
#include "gqa/attention.h"
#include "support/expect_error.h"

namespace gqa {
namespace {

RecallBench small(const AttentionSpec& attention, int64_t needles) {
  RecallBench b;
  b.attention = attention;
  b.q_heads = 8;
  b.kv_heads = 4;
  b.head_dim = 64;
  b.kv_len = 1024;
  b.needles = needles;
  b.queries = 8;
  b.trials = 4;
  return b;
}

TEST(Recall, ExactAttentionFindsNearlyAll) {
  Context context({.threads = 2});
  for (const int64_t needles : {1, 32}) {
    const RecallResult result = bench_recall(context, small(ExactAttention{}, needles));
    EXPECT_GT(result.recall, 0.98);
    EXPECT_EQ(result.exact_recall, result.recall);
    EXPECT_GT(result.needle_mass, 0.5);
    EXPECT_LT(result.needle_mass, 0.85);
    EXPECT_EQ(result.chance, 1.0 / 64);
    EXPECT_EQ(result.shares.keys_read, 1);
    EXPECT_EQ(result.shares.kv_bytes, 1);
  }
}

TEST(Recall, AWindowFindsWhatLiesInIt) {
  Context context({.threads = 1});
  RecallBench b = small(SlidingWindow{64}, 500);
  b.trials = 8;
  const RecallResult result = bench_recall(context, b);
  EXPECT_GT(result.exact_recall, 0.98);
  // A query sees the 63 tokens before it, of which up to 8 are queries' own; needles are anywhere
  // before the first query, and whoever does not see one guesses.
  const double inside = (63 - 3.5) / (1024 - 8 - 1);
  const double expected = inside + (1 - inside) / 64;
  const double asked = 8 * 8 * 8;
  // A head asks for the same needle four times.
  const double deviation = std::sqrt(expected * (1 - expected) * 4 / asked);
  EXPECT_NEAR(result.recall, expected, 4 * deviation);
  EXPECT_NEAR(result.shares.keys_read, 64.0 / (1024 - 3.5), 1e-9);
}

TEST(Recall, FullBudgetsFindWhatExactAttentionFinds) {
  Context context({.threads = 2});
  for (const char* text :
       {"topk:16", "topp:1", "lowrank:4", "lowrank:64,1024", "clustered:128", "clustered:1,16",
        "dynamic:0", "global-local:1024,64", "global-local:1,1"}) {
    const RecallResult result = bench_recall(context, small(parse_attention(text), 32));
    EXPECT_EQ(result.recall, result.exact_recall) << text;
    EXPECT_GT(result.shares.kv_bytes, 0.9) << text;
  }
}

TEST(Recall, ChoosingFindsMoreThanAWindowOfTheSameSize) {
  Context context({.threads = 2});
  const double window = bench_recall(context, small(SlidingWindow{512}, 32)).recall;
  const auto check = [&](const char* text, int64_t low, int64_t high) {
    const RecallResult result = bench_recall(context, small(parse_attention(text), 32));
    EXPECT_GT(result.recall, window + 0.1) << text;
    EXPECT_LT(result.shares.keys_read, 0.5) << text;
    EXPECT_GE(result.shares.kv_bytes, result.shares.keys_read) << text;
    ASSERT_TRUE(result.shares.chosen) << text;
    EXPECT_GE(result.shares.chosen->min, low) << text;
    EXPECT_LE(result.shares.chosen->max, high) << text;
  };
  check("topk:8", 8, 8);
  check("lowrank:32,64", 64, 64);
  check("lowrank:64,64", 64, 64);
  check("dynamic:0.5", 1, 8);
}

TEST(Recall, IsTheSameForAnyThreads) {
  const RecallBench b = small(BlockLocal{256}, 4);
  const auto run = [&](int threads, uint64_t seed) {
    Context context({.threads = threads});
    RecallBench seeded = b;
    seeded.seed = seed;
    return bench_recall(context, seeded);
  };
  const RecallResult one = run(1, 3), two = run(2, 3), other = run(1, 4);
  EXPECT_EQ(one.recall, two.recall);
  EXPECT_EQ(one.needle_mass, two.needle_mass);
  EXPECT_NE(one.needle_mass, other.needle_mass);
}

TEST(Haystack, HeadsOfAGroupLookForDifferentNeedles) {
  RecallBench b = small(ExactAttention{}, 3);
  b.q_heads = 12;
  ThreadPool pool(1);
  bench::Haystack haystack(b, 0);
  std::set<int64_t> ever;
  for (int64_t i = 0; i < 8; ++i) {
    const int64_t before = haystack.target(0);
    haystack.query(pool);
    if (i % 4 != 0) {
      EXPECT_EQ(before, haystack.target(0)) << "for four tokens";
    }
    for (int64_t g = 0; g < 4; ++g) {
      std::set<int64_t> targets;
      for (int64_t h = 0; h < 3; ++h) targets.insert(haystack.target(3 * g + h));
      EXPECT_EQ(targets, (std::set<int64_t>{0, 1, 2}));
      ever.insert(haystack.position(g, haystack.target(3 * g)));
    }
  }
  EXPECT_GT(ever.size(), 3u) << "each KV head has its own";
  for (const int64_t at : ever) {
    EXPECT_GE(at, 1);
    EXPECT_LT(at, 1024 - 8);
  }
}

/// A query finds its needle from the needle's own position on, and never before.
TEST(Haystack, TheFutureHidesNeedles) {
  const RecallBench b = small(ExactAttention{}, 64);
  Context context({.threads = 1});
  ThreadPool pool(1);
  bench::Haystack haystack(b, 0);
  const bench::KvRows rows = haystack.tokens(pool, b.kv_len);
  const std::vector<float> q = haystack.query(pool);
  int found_after = 0, found_before = 0;
  std::vector<float> out(static_cast<size_t>(b.q_heads * b.head_dim));
  for (int64_t h = 0; h < b.q_heads; ++h) {
    const int64_t g = h / 2;
    const int64_t at = haystack.position(g, haystack.target(h));
    const auto found = [&](int64_t position) {
      const StridedKv kv{.k = {rows.k.data(), DType::f32, {1, b.kv_len, b.kv_heads, b.head_dim}},
                         .v = {rows.v.data(), DType::f32, {1, b.kv_len, b.kv_heads, b.head_dim}},
                         .pages = {},
                         .first_key = 0,
                         .len = b.kv_len};
      const AttendItem item{.q = {q.data(), DType::f32, {1, b.q_heads, b.head_dim}},
                            .kv = kv,
                            .out = {out.data(), DType::f32, {1, b.q_heads, b.head_dim}},
                            .q_start = position};
      attend(context, std::span(&item, 1));
      return haystack.nearest(g, out.data() + h * b.head_dim) ==
             haystack.code(g, haystack.target(h));
    };
    found_after += found(at) ? 1 : 0;
    found_before += found(at - 1) ? 1 : 0;
  }
  EXPECT_EQ(found_after, b.q_heads);
  EXPECT_LE(found_before, 2) << "by chance";
}

TEST(Recall, RefusesWhatCanNotBe) {
  Context context({.threads = 1});
  const auto refuse = [&](std::initializer_list<std::string_view> words,
                          void (*change)(RecallBench&)) {
    RecallBench b = small(ExactAttention{}, 1);
    change(b);
    test::expect_error(ErrorKind::usage, words, [&] { bench_recall(context, b); });
  };
  refuse({"q_heads is 0"}, [](auto& b) { b.q_heads = 0; });
  refuse({"kv_heads is 3", "q_heads (8)"}, [](auto& b) { b.kv_heads = 3; });
  refuse({"head_dim is 15", "16"}, [](auto& b) { b.head_dim = 15; });
  refuse({"needles is 0"}, [](auto& b) { b.needles = 0; });
  refuse({"needles is 1016", "1015"}, [](auto& b) { b.needles = 1016; });
  refuse({"queries is 1023", "1024"}, [](auto& b) { b.queries = 1023; });
  refuse({"trials is 0"}, [](auto& b) { b.trials = 0; });
  refuse({"kv_len is 4294967296"}, [](auto& b) { b.kv_len = int64_t{1} << 32; });
}

}  // namespace
}  // namespace gqa
