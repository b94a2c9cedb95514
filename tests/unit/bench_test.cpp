// What `bench` counts and how it sums up times; how fast anything is, no test says.
#include "gqa/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "bench/ceilings.h"
#include "bench/counting.h"
#include "bench/read_memory.h"
#include "bench/sgemm.h"
#include "bench/timing.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using bench::count_keys;
using bench::seen_keys;
using bench::visible_pairs;
using ::testing::ElementsAre;

/// What a ceiling is, no test says: a product that takes little time, on an emulated processor,
/// too.
constexpr int64_t small_gemm = 64;

TEST(BenchCounting, Pairs) {
  EXPECT_EQ(visible_pairs({}, 1, 1), 1);
  EXPECT_EQ(visible_pairs({}, 1, 1000), 1000);
  EXPECT_EQ(visible_pairs({}, 4, 4), 1 + 2 + 3 + 4);
  EXPECT_EQ(visible_pairs({}, 3, 10), 8 + 9 + 10);
  EXPECT_EQ(visible_pairs({}, 2048, 2048), 2048 * 2049 / 2);
  EXPECT_EQ(visible_pairs({.window = 3}, 5, 5), 1 + 2 + 3 + 3 + 3);
  EXPECT_EQ(visible_pairs({.window = 3, .sink_tokens = 1}, 5, 5), 1 + 2 + 3 + 4 + 4);
  EXPECT_EQ(visible_pairs({.window = 100}, 1, 10), 10);
  EXPECT_EQ(visible_pairs({.window = 4}, 1, 10), 4);
  EXPECT_EQ(visible_pairs({.causal = false}, 3, 10), 30);
}

TEST(BenchCounting, KeysThatAnyQuerySees) {
  EXPECT_THAT(seen_keys({}, 1, 10), ElementsAre(KeyRange{0, 10}));
  EXPECT_THAT(seen_keys({}, 10, 10), ElementsAre(KeyRange{0, 10}));
  EXPECT_THAT(seen_keys({.window = 4}, 1, 10), ElementsAre(KeyRange{6, 10}));
  EXPECT_THAT(seen_keys({.window = 4}, 3, 10), ElementsAre(KeyRange{4, 10}));
  EXPECT_THAT(seen_keys({.window = 1}, 10, 10), ElementsAre(KeyRange{0, 10}));
  EXPECT_THAT(seen_keys({.window = 4, .sink_tokens = 2}, 1, 10),
              ElementsAre(KeyRange{0, 2}, KeyRange{6, 10}));
  EXPECT_EQ(count_keys(seen_keys({.window = 4, .sink_tokens = 2}, 1, 10)), 6);
  EXPECT_EQ(count_keys({}), 0);
}

TEST(BenchCounting, Operations) {
  EXPECT_EQ(bench::attention_flop(32, 128, 128, 1000), 4.0 * 32 * 128 * 1000);
  EXPECT_EQ(bench::attention_flop(3, 8, 5, 7), 2.0 * (8 + 5) * 3 * 7);

  ModelConfig config;
  config.width = 10;
  config.mlp_width = 7;
  config.q_heads = 4;
  config.kv_heads = {2, 1};
  config.head_dim = 3;
  config.vocab_size = 11;
  const double q_and_o = 2 * 10 * 4 * 3;
  const double mlp = 3 * 10 * 7;
  const double weights = 2 * (q_and_o + mlp) + 2.0 * 10 * (2 + 1) * 3;
  const double pairs = 1 + 2 + 3 + 4 + 5;
  EXPECT_EQ(bench::prefill_flop(config, 5),
            2 * weights * 5 + 2 * 10 * 11 + 2 * 4.0 * 4 * 3 * pairs);
  config.window = 2;
  EXPECT_EQ(bench::prefill_flop(config, 5),
            2 * weights * 5 + 2 * 10 * 11 + 2 * 4.0 * 4 * 3 * (1 + 2 + 2 + 2 + 2));
}

TEST(BenchStatistics, MedianLeastAndMost) {
  EXPECT_EQ(bench::median({3}), 3);
  EXPECT_EQ(bench::median({4, 1}), 2.5);
  EXPECT_EQ(bench::median({9, 1, 2}), 2);
  EXPECT_EQ(bench::median({9, 1, 2, 4}), 3);
  const std::array<double, 3> seconds{0.5, 0.125, 2};
  const BenchTimes ms = bench::summary_ms(seconds);
  EXPECT_EQ(ms.median, 500);
  EXPECT_EQ(ms.min, 125);
  EXPECT_EQ(ms.max, 2000);
}

TEST(BenchStatistics, TurnsEnd) {
  std::vector<int64_t> reported;
  const Progress progress = [&](std::string_view what, int64_t done, int64_t total) {
    EXPECT_EQ(what, "measure");
    EXPECT_EQ(total, 1000);
    reported.push_back(done);
  };
  bench::Turns turns(4, progress);
  int count = 0;
  while (turns.next()) ++count;
  EXPECT_EQ(count, 4);
  EXPECT_EQ(turns.done(), 4);
  EXPECT_THAT(reported, ElementsAre(0, 250, 500, 750, 1000));

  // Nothing to do takes no time: as often as it gets without a number.
  const Progress none;
  bench::Turns free_turns(0, none);
  while (free_turns.next()) {
  }
  EXPECT_GE(free_turns.done(), 5);
  EXPECT_LE(free_turns.done(), 100);
}

TEST(BenchCeilings, PiecesCoverMemoryOnce) {
  const std::vector<std::byte> memory(600'001);
  std::vector<bench::Piece> pieces;
  bench::append_pieces(memory, pieces);
  EXPECT_EQ(bench::total_bytes(pieces), std::ssize(memory));
  const std::byte* at = memory.data();
  for (const bench::Piece& piece : pieces) {
    EXPECT_EQ(piece.data(), at);
    at += piece.size();
  }
  ThreadPool pool(3);
  bench::read_memory(pool, pieces);
  bench::read_memory(pool, {});
}

TEST(BenchCeilings, ArithmeticIsTimedForNoLongerThanTheRest) {
  ThreadPool pool(1);
  bench::Ceilings ceilings(pool, {.gemm_size = small_gemm});
  EXPECT_TRUE(ceilings.arithmetic_is_due(0));
  ceilings.time_arithmetic();
  EXPECT_FALSE(ceilings.arithmetic_is_due(0));
  EXPECT_TRUE(ceilings.arithmetic_is_due(1e6));
  ceilings.clear();
  EXPECT_TRUE(ceilings.arithmetic_is_due(0));
}

TEST(BenchCeilings, ProductsOfAnySizeThatGivesEachThreadARow) {
  ThreadPool pool(3);
  for (const int64_t size : {3, 10, 64}) {
    bench::Sgemm sgemm(pool, size);
    sgemm.run(pool);
    EXPECT_EQ(sgemm.flop(), 2.0 * static_cast<double>(size * size * size));
  }
  test::expect_error(ErrorKind::usage, {"gemm_size is 2", "number of threads (3)"},
                     [&] { bench::Sgemm(pool, 2); });
  Context context({.threads = 3});
  test::expect_error(ErrorKind::usage, {"gemm_size is 0"},
                     [&] { bench_attention(context, {.kv_len = 64}, {.gemm_size = 0}); });
}

TEST(BenchCeilings, TilesForAnyNumberOfThreads) {
  EXPECT_EQ(bench::tile_grid(1), std::pair(1, 1));
  EXPECT_EQ(bench::tile_grid(2), std::pair(2, 1));
  EXPECT_EQ(bench::tile_grid(6), std::pair(3, 2));
  EXPECT_EQ(bench::tile_grid(7), std::pair(7, 1));
  EXPECT_EQ(bench::tile_grid(64), std::pair(8, 8));
}

AttentionBench small() {
  return {.q_heads = 4, .kv_heads = 2, .head_dim = 16, .v_head_dim = 8, .kv_len = 100};
}

TEST(BenchAttention, CountsWhatIsRead) {
  Context context({.threads = 2, .pin = true});
  AttentionBench b = small();
  const int64_t cache_bytes = 128 * 2 * (16 + 8) * 2;  // whole pages
  const AttentionBenchResult result = bench_attention(
      context, b, {.repeats = 2, .rotate_bytes = 3 * cache_bytes, .gemm_size = small_gemm});
  EXPECT_EQ(result.kv_bytes, 100 * 2 * (16 + 8) * 2);
  EXPECT_EQ(result.repeats, 2);
  EXPECT_EQ(result.caches, 4) << "more than rotate_bytes";
  EXPECT_EQ(result.rotated_bytes, 4 * cache_bytes);
  EXPECT_LE(result.ms.min, result.ms.median);
  EXPECT_LE(result.ms.median, result.ms.max);
  EXPECT_GT(result.ms.min, 0);
  EXPECT_DOUBLE_EQ(result.gb_per_s.value,
                   static_cast<double>(result.kv_bytes) / result.ms.median / 1e6);
  EXPECT_DOUBLE_EQ(result.gflop_per_s.value, 2.0 * (16 + 8) * 4 * 100 / result.ms.median / 1e6);
  EXPECT_GT(result.gb_per_s.ceiling, 0);
  EXPECT_GT(result.gflop_per_s.ceiling, 0);
  EXPECT_GE(result.cpu_fraction, 0);
  EXPECT_LE(result.cpu_fraction, 1);

  b.window = 10;
  b.kv_dtype = KvDType::f32;
  EXPECT_EQ(bench_attention(context, b, {.repeats = 1, .rotate_bytes = 1, .gemm_size = small_gemm})
                .kv_bytes,
            10 * 2 * (16 + 8) * 4);
}

TEST(BenchAttention, FewerCachesWhereMemoryEnds) {
  Context context({.threads = 1});
  const AttentionBench b = small();
  const int64_t cache_bytes = 128 * 2 * (16 + 8) * 2;
  const int64_t row_bytes = 4 * (16 + 8) * 2;
  const auto run = [&](int64_t memory) {
    return bench_attention(context, b,
                           {.repeats = 1,
                            .rotate_bytes = 100 * cache_bytes,
                            .memory_bytes = memory,
                            .gemm_size = small_gemm});
  };
  EXPECT_EQ(run(3 * cache_bytes + row_bytes).caches, 3);
  EXPECT_EQ(run(cache_bytes + row_bytes).caches, 1);
  test::expect_error(ErrorKind::resources,
                     {"out of memory", std::to_string(cache_bytes), std::to_string(row_bytes)},
                     [&] { run(cache_bytes + row_bytes - 1); });
}

// What two configurations in turns come to, the command line's test says.
TEST(BenchAttention, TwoConfigurationsThatCanNotBeInTurns) {
  Context context({.threads = 1});
  const AttentionBench b = small();
  const int64_t needed = 128 * 2 * (16 + 8) * 2 + 4 * (16 + 8) * 2;
  test::expect_error(ErrorKind::resources, {"out of memory", std::to_string(needed - 1)}, [&] {
    bench_beside(context, b, b,
                 {.repeats = 1, .memory_bytes = 2 * needed - 2, .gemm_size = small_gemm});
  });
  AttentionBench blocks = b;
  blocks.attention = BlockLocal{64};
  for (const auto& [one, other] : {std::pair(b, blocks), std::pair(blocks, b)}) {
    test::expect_error(ErrorKind::usage, {"attention is block:64", "expected exact"},
                       [&] { bench_beside(context, one, other); });
  }
}

TEST(BenchAttention, RefusesWhatCanNotBe) {
  Context context({.threads = 1});
  const auto refuse = [&](ErrorKind kind, std::initializer_list<std::string_view> words,
                          const std::function<void(AttentionBench&)>& change) {
    AttentionBench b = small();
    change(b);
    test::expect_error(kind, words, [&] { bench_attention(context, b, {.repeats = 1}); });
  };
  refuse(ErrorKind::usage, {"kv_heads is 3", "q_heads (4)"}, [](auto& b) { b.kv_heads = 3; });
  refuse(ErrorKind::usage, {"q_len is 101", "100"}, [](auto& b) { b.q_len = 101; });
  refuse(ErrorKind::usage, {"q_len is 0"}, [](auto& b) { b.q_len = 0; });
  refuse(ErrorKind::usage, {"head_dim is 0"}, [](auto& b) { b.head_dim = 0; });
  refuse(ErrorKind::usage, {"v_head_dim is -1"}, [](auto& b) { b.v_head_dim = -1; });
  refuse(ErrorKind::usage, {"window is -1"}, [](auto& b) { b.window = -1; });
  refuse(ErrorKind::usage, {"softcap is -1"}, [](auto& b) { b.softcap = -1; });
  refuse(ErrorKind::resources, {"memory"}, [](auto& b) { b.kv_len = int64_t{1} << 60; });
}

TEST(BenchModel, CountsWhatAStepReads) {
  const test::TempDir dir;
  const test::TinyLlama tiny{.kv_heads = 2, .tied_head = false};
  const Model model = Model::load(test::write_tiny(dir / "model", tiny));
  const ModelConfig& c = model.config();
  int64_t matrices = c.width * c.vocab_size;  // the head
  int64_t kv_per_token = 0;                   // elements
  for (const int64_t kv_heads : c.kv_heads) {
    matrices += 2 * c.width * (c.q_heads + kv_heads) * c.head_dim + 3 * c.width * c.mlp_width;
    kv_per_token += 2 * kv_heads * c.head_dim;
  }
  const int64_t norms = (2 * c.n_layers + 1) * c.width;
  EXPECT_EQ(matrices + norms + c.width * c.vocab_size, model.parameters());

  Context context({.threads = 2});
  const ModelBenchResult result = bench_model(
      context, model, {.prompt_tokens = 5, .new_tokens = 3, .batch = 2, .kv_dtype = KvDType::f16},
      {.repeats = 2, .gemm_size = small_gemm});
  EXPECT_EQ(result.prompt_tokens, 5);
  EXPECT_EQ(result.weight_bytes, matrices * 4);
  EXPECT_EQ(result.kv_bytes, 2 * kv_per_token * 2 * 7) << "of 6, 7 and 8 tokens in the mean";
  EXPECT_EQ(result.repeats, 2);
  EXPECT_DOUBLE_EQ(result.decode_tokens_per_s, 2 / result.ms.median * 1e3);
  EXPECT_DOUBLE_EQ(result.prefill_tokens_per_s, 10 / result.prefill_ms.median * 1e3);

  const auto refuse = [&](const ModelBench& b, std::initializer_list<std::string_view> words) {
    test::expect_error(ErrorKind::usage, words, [&] { bench_model(context, model, b); });
  };
  const int64_t limit = c.max_positions;
  refuse({.new_tokens = limit}, {"new_tokens is " + std::to_string(limit)});
  refuse({.prompt_tokens = limit - 2, .new_tokens = 3}, {"prompt_tokens is", "expected 1 to"});
  refuse({.new_tokens = 1, .batch = 0}, {"batch is 0"});
}

}  // namespace
}  // namespace gqa
