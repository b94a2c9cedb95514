// What a token gets depends on its own past alone, however the sequence was made and cut.
#include <gtest/gtest.h>

#include "gqa/approx.h"
#include "support/approx_case.h"
#include "support/approx_directions.h"

namespace gqa {
namespace {

using test::Random;
using test::Tokens;

const test::Heads even{6, 2, {}};
const test::Heads uneven{7, 3, {0, 1, 5, 7}};

/// Every variant, at small budgets and larger ones.
std::vector<AttentionSpec> all_specs() {
  return {ExactAttention{},   BlockLocal{50},       SlidingWindow{90},   TopPages{3},
          TopPages{5},        TopMass{0.3},         TopMass{0.9},        LowRank{4, 1},
          LowRank{4, 40},     LowRank{16, 33},      LowRank{5, 300},     LowRank{3},
          GlobalLocal{1, 7},  GlobalLocal{100, 64}, GlobalLocal{65, 50}, Clustered{1, 0},
          Clustered{9, 0},    Clustered{5, 1},      Clustered{40, 3},    DynamicGroups{0.05},
          DynamicGroups{0.5}, DynamicGroups{3}};
}
/// Whether what is kept are groups of queries, which begin anew where a sequence is cut.
bool has_groups(const AttentionSpec& spec) {
  return std::holds_alternative<Clustered>(spec) || std::holds_alternative<DynamicGroups>(spec);
}

/// The rows from token `first` on.
std::vector<float> tail(const std::vector<float>& out, const Tokens& x, int64_t first) {
  return {out.begin() + first * x.q_heads * x.v_head_dim, out.end()};
}

TEST(ApproxPast, LaterTokensChangeNothingEarlier) {
  Context context({.threads = 2});
  Random random(81);
  for (const test::Heads& heads : {even, uneven}) {
    const Tokens x(random, 650, heads, 16, 12);
    Tokens other(random, 650, heads, 16, 12);
    // What is there in later tokens is to be tempting.
    for (float& value : other.k) value *= 5;
    const KeyDirections stored = test::random_directions(random, heads.kv_heads, 16);
    for (const AttentionSpec& spec : all_specs()) {
      const bool low_rank = std::holds_alternative<LowRank>(spec);
      for (const KeyDirections& directions : {KeyDirections{}, stored}) {
        if (!directions.layers.empty() && !low_rank) continue;
        const auto first = run(context, spec, x, heads, KvDType::f16, 1 << 20, directions);
        for (const int64_t cut : {1, 77, 128, 300, 511, 576, 649}) {
          Tokens changed = x;
          changed.replace(cut, other);
          auto second = run(context, spec, changed, heads, KvDType::f16, 1 << 20, directions);
          const auto rows = static_cast<size_t>(cut * x.q_heads * x.v_head_dim);
          EXPECT_FALSE(std::equal(first.begin() + static_cast<int64_t>(rows), first.end(),
                                  second.begin() + static_cast<int64_t>(rows)));
          second.resize(rows);
          ASSERT_TRUE(std::equal(second.begin(), second.end(), first.begin()))
              << attention_text(spec) << ", tokens from " << cut << " on changed";
        }
      }
    }
  }
}

TEST(ApproxPast, ChunksAndThreadsChangeNothing) {
  Context one({.threads = 1}), two({.threads = 2}), three({.threads = 3}), four({.threads = 4});
  Random random(82);
  for (const KvDType t : {KvDType::f32, KvDType::bf16, KvDType::int8}) {
    const test::Heads& heads = t == KvDType::f32 ? even : uneven;
    const Tokens x(random, 585, heads, 16, 12);
    const KeyDirections stored = test::random_directions(random, heads.kv_heads, 16);
    for (const AttentionSpec& spec : all_specs()) {
      const auto expected = run(one, spec, x, heads, t);
      for (const int64_t chunk : {1, 7, 64, 130}) {
        ASSERT_EQ(run(chunk == 7 ? two : one, spec, x, heads, t, chunk), expected)
            << attention_text(spec) << ", " << chunk << " tokens a call";
      }
      for (Context* context : {&two, &three, &four}) {
        ASSERT_EQ(run(*context, spec, x, heads, t), expected)
            << attention_text(spec) << ", " << context->threads() << " threads";
      }
      if (!std::holds_alternative<LowRank>(spec)) continue;
      ASSERT_EQ(run(two, spec, x, heads, t, 1 << 20, stored),
                run(one, spec, x, heads, t, 33, stored))
          << attention_text(spec);
    }
  }
}

TEST(ApproxPast, SequencesAndLayersDoNotDisturbEachOther) {
  Context context({.threads = 2});
  Random random(83);
  // Layers of different heads, sequences of different lengths; each of their turns is a batch.
  const std::vector<test::Heads> layers{even, uneven};
  constexpr int64_t lengths[] = {400, 131, 290};
  std::vector<std::vector<Tokens>> x;
  for (const auto& heads : layers) {
    x.emplace_back();
    for (const int64_t n : lengths) x.back().emplace_back(random, n, heads, 16, 12);
  }
  for (const AttentionSpec& spec : all_specs()) {
    KvCache cache({.kv_heads = {2, 3}, .head_dim = 16, .v_head_dim = 12});
    Approximation together(spec, cache.shape());
    std::vector<int64_t> ids;
    std::vector<std::vector<std::vector<float>>> out(2);
    for (size_t i = 0; i < 3; ++i) {
      ids.push_back(cache.create());
      for (size_t l = 0; l < 2; ++l) {
        out[l].emplace_back(static_cast<size_t>(x[l][i].n * x[l][i].q_heads * 12));
      }
    }
    for (int64_t begin = 0; begin < 400; begin += 100) {
      for (size_t l = 0; l < 2; ++l) {
        std::vector<Approximation::Item> items;
        for (const size_t i : {2u, 0u, 1u}) {
          const int64_t end = std::min(x[l][i].n, begin + 100);
          if (begin >= end) continue;
          append(context, cache, ids[i], x[l][i], begin, end, static_cast<int64_t>(l));
          items.push_back(item_of(ids[i], x[l][i], begin, end,
                                  out[l][i].data() + begin * x[l][i].q_heads * 12));
        }
        together.attend(context, cache, static_cast<int64_t>(l), items,
                        {.group_offsets = layers[l].group_offsets});
      }
    }
    for (size_t l = 0; l < 2; ++l) {
      for (size_t i = 0; i < 3; ++i) {
        ASSERT_EQ(out[l][i], run(context, spec, x[l][i], layers[l]))
            << attention_text(spec) << ", layer " << l << ", sequence " << i;
      }
    }
  }
}

TEST(ApproxPast, ForksCutsAndIdsThatCameBackAreFresh) {
  Context context({.threads = 2});
  Random random(84);
  const Tokens x(random, 500, even, 16, 12);
  const Tokens other(random, 500, even, 16, 12);
  for (const AttentionSpec& spec : all_specs()) {
    const auto same = [&](const std::vector<float>& got, const Tokens& tokens, int64_t first) {
      return got == tail(run(context, spec, tokens, even), tokens, first);
    };
    for (const int64_t cut : {128, 384, 256, 300, 173}) {
      if (has_groups(spec) && cut % 128 != 0) continue;
      SCOPED_TRACE(attention_text(spec) + ", cut at " + std::to_string(cut));
      KvCache cache(x.shape());
      Approximation approximation(spec, cache.shape());
      const auto go_on = [&](int64_t id, const Tokens& tokens, int64_t begin, int64_t end) {
        return run(context, approximation, cache, id, tokens, even, begin, end, 90);
      };
      Tokens mixed = x;
      mixed.replace(cut, other);
      const int64_t id = cache.create();
      go_on(id, x, 0, 450);
      const int64_t fork = cache.fork(id, cut);
      ASSERT_TRUE(same(go_on(fork, mixed, cut, 500), mixed, cut)) << "a fork";
      ASSERT_TRUE(same(go_on(id, x, 450, 500), x, 450)) << "what was forked";
      cache.truncate(id, cut);
      ASSERT_TRUE(same(go_on(id, mixed, cut, 500), mixed, cut)) << "after truncation";
      cache.free(id);
      const int64_t next = cache.create();
      ASSERT_EQ(next, id) << "ids are used again";
      ASSERT_TRUE(same(go_on(next, other, 0, 500), other, 0)) << "an id that came back";
    }
  }
}

/// Nor by what the same tokens, or later ones, have left behind.
TEST(ApproxPast, TokensThatAreAskedForAgainGetTheSame) {
  Context context({.threads = 1});
  Random random(86);
  const Tokens x(random, 400, even, 16, 12);
  for (const AttentionSpec& spec : all_specs()) {
    KvCache cache(x.shape());
    Approximation approximation(spec, cache.shape());
    const int64_t id = cache.create();
    const auto first = run(context, approximation, cache, id, x, even, 0, 400, 57);
    const auto ask = [&](Approximation& whom, int64_t begin) {
      std::vector<float> out(static_cast<size_t>((400 - begin) * 6 * 12));
      const auto item = item_of(id, x, begin, 400, out.data());
      whom.attend(context, cache, 0, std::span(&item, 1), {});
      return out;
    };
    EXPECT_EQ(ask(approximation, 0), first) << attention_text(spec);
    Approximation fresh(spec, cache.shape());
    EXPECT_EQ(ask(approximation, 350), ask(fresh, 350)) << attention_text(spec);
  }
}

/// Groups begin anew in the middle of a segment, but not from what was cut off.
TEST(ApproxPast, GroupsBeginAnewWhereASequenceWasCut) {
  Context context({.threads = 1});
  Random random(85);
  const Tokens x(random, 400, even, 16, 12);
  const Tokens other(random, 400, even, 16, 12);
  Tokens mixed = x;
  mixed.replace(300, other);
  for (const AttentionSpec& spec : all_specs()) {
    if (!has_groups(spec)) continue;
    const auto resumed = [&](bool past_groups) {
      KvCache cache(x.shape());
      Approximation approximation(spec, cache.shape());
      const int64_t id = cache.create();
      if (past_groups) {
        run(context, approximation, cache, id, x, even, 0, 400, 111);
        cache.truncate(id, 300);
      } else {
        append(context, cache, id, x, 0, 300);
      }
      return run(context, approximation, cache, id, mixed, even, 300, 400, 30);
    };
    EXPECT_EQ(resumed(true), resumed(false)) << attention_text(spec);
  }
}

}  // namespace
}  // namespace gqa
