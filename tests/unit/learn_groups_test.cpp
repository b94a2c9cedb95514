// Learning which heads become one: where it begins, what is found, and how it is rounded.
#include "regroup/learn_groups.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <stdexcept>

#include "regroup/relaxed_start.h"
#include "support/block_case.h"

namespace gqa {
namespace {

using test::Hidden;

const std::vector<int64_t> lengths{37, 50, 61, 40, 33, 70, 55, 90, 41};

Rows random_rows(std::mt19937_64& random, int64_t rows, int64_t cols) {
  return test::random_matrix(random, rows, cols).cast<float>();
}

TEST(LearnGroups, RoundingKeepsTogetherWhatSharesItsAssignment) {
  Rows p(6, 2);
  p << 0.9f, 0.1f, 0.2f, 0.8f, 0.6f, 0.4f, 0.7f, 0.3f, 0.1f, 0.9f, 0.55f, 0.45f;
  // Four heads prefer the first group: the one of them that prefers it least goes.
  EXPECT_EQ(rounded(p, true, 0), HeadGroups({{0, 2, 3}, {1, 4, 5}}));
  p.row(0) << 0.02f, 0.98f;
  p.row(2) << 0.01f, 0.99f;
  p.row(3) << 1, 0;
  p.row(5) << 0, 1;
  EXPECT_EQ(rounded(p, false, 0), HeadGroups({{0, 1, 2, 4, 5}, {3}}));
}

/// Of all ways to make two groups of six heads, none is cheaper.
TEST(LearnGroups, RoundingIsExact) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 20; ++round) {
    const Rows p = assignment(random_rows(random, 6, 2), 0.5);
    const auto cost = [&](const HeadGroups& groups) {
      float sum = 0;
      for (const auto& group : groups) {
        for (const int64_t a : group) {
          float together = 0;
          for (const int64_t b : group) together += p.row(a).dot(p.row(b));
          sum += 1 - together / static_cast<float>(group.size());
        }
      }
      return sum;
    };
    for (const bool equal : {true, false}) {
      const float least = cost(rounded(p, equal, 0));
      for (unsigned set = 1; set < 63; ++set) {
        HeadGroups groups(2);
        for (int64_t a = 0; a < 6; ++a) groups[set >> a & 1].push_back(a);
        if (equal && groups[0].size() != 3) continue;
        EXPECT_LE(least, cost(groups) + 1e-5f);
      }
    }
  }
}

/// Heads that are copies of a few, in other bases, on text.
struct Found {
  Hidden hidden;
  CalibrationWindows text;
  BlockShape shape;
  Rows inputs;

  Found(uint64_t seed, Hidden what)
      : hidden(std::move(what)),
        text(test::some_windows(19, lengths)),
        shape(test::block_config(6, 0), text, hidden.heads) {
    hidden.heads.q *= 0.05;  // so that queries attend to more than one key
    std::mt19937_64 random(seed);
    inputs = random_rows(random, text.tokens(), hidden.heads.inputs());
  }

  LayerStudy study(Context& context) const {
    return study_layer(context.impl(), test::block_config(6, 0), text, hidden.heads,
                       ScratchRows({}, inputs));
  }
};

/// The same with one query head a KV head of only some of them.
Found some_of(uint64_t seed, const std::vector<int64_t>& kept) {
  Hidden hidden = test::hide(seed, 3, 3);
  Heads& heads = hidden.heads;
  heads = test::reordered(heads, [&] {
    std::vector<int64_t> order = kept;
    for (int64_t a = 0; a < 9; ++a) {
      if (std::ranges::find(kept, a) == kept.end()) order.push_back(a);
    }
    return order;
  }());
  const auto n = std::ssize(kept);
  for (Matrix* m : {&heads.q, &heads.k, &heads.v}) *m = Matrix(m->topRows(n * 6));
  heads.o = Matrix(heads.o.leftCols(n * 6));
  heads.q_begin.resize(kept.size() + 1);
  HeadGroups groups;
  for (const auto& group : hidden.groups) {
    std::vector<int64_t> members;
    for (size_t i = 0; i < kept.size(); ++i) {
      if (std::ranges::find(group, kept[i]) != group.end()) {
        members.push_back(static_cast<int64_t>(i));
      }
    }
    groups.push_back(members);
  }
  hidden.groups = canonical(groups);
  return Found(seed, std::move(hidden));
}

/// Of 15 ways to make 3 pairs, 4 starts would hit the right one for 3 of 12 layers by chance.
TEST(LearnGroups, FindsWhatIsHidden) {
  Context context({.threads = 2});
  int found = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    const Found c(seed, test::hide(seed, 3, 2));
    found +=
        learn_groups(context.impl(), c.shape, c.study(context),
                     {.groups = 3, .steps = 400, .rate = 0.12, .seed = seed}) == c.hidden.groups;
  }
  EXPECT_GE(found, 8);
}

/// Of 90 ways to make 3 groups, for hardly any.
TEST(LearnGroups, FindsGroupsOfDifferentSizes) {
  Context context({.threads = 2});
  int found = 0;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const HeadGroups all = test::hide(seed, 3, 3).groups;
    std::vector<int64_t> kept{all[0][0], all[1][0], all[1][1]};
    kept.insert(kept.end(), all[2].begin(), all[2].end());
    const Found c = some_of(seed, kept);
    ASSERT_EQ(c.hidden.groups, HeadGroups({{0}, {1, 2}, {3, 4, 5}}));
    found +=
        learn_groups(context.impl(), c.shape, c.study(context),
                     {.groups = 3, .equal = false, .steps = 400, .rate = 0.12, .seed = seed}) ==
        c.hidden.groups;
  }
  EXPECT_GE(found, 4);
}

/// All of it together is the layer, to begin with, where as many shared heads span all heads.
TEST(LearnGroups, BeginsWithWhatTheLayerDoes) {
  Context context({.threads = 2});
  const Found c(20, test::hide(20, 3, 2));
  const LayerStudy study = c.study(context);
  Random random(1, RandomUse::learn_start, 0);
  const RelaxedHeads heads = relaxed_start(context.impl(), study, 3, random);
  EXPECT_EQ(heads.logits.norm(), 0);
  BlockAttention block(context.impl(), c.shape, c.inputs);
  block.run(mixed(context.impl(), heads, assignment(heads.logits, 1)));
  EXPECT_LT((block.output() - study.output.map()).norm(), 1e-2f * study.output.map().norm());
}

TEST(LearnGroups, ThreadsChangeNoBitAndSeedsDo) {
  const Found c(21, test::hide(21, 3, 2));
  std::vector<Rows> keys;
  std::vector<HeadGroups> groups;
  for (const int threads : {1, 2, 5}) {
    Context context({.threads = threads});
    const LayerStudy study = c.study(context);
    Random random(1, RandomUse::learn_start, 0);
    const RelaxedHeads heads = relaxed_start(context.impl(), study, 3, random);
    const Rows p = assignment(heads.logits, 0.5);
    const BlockWeights weights = mixed(context.impl(), heads, p);
    keys.push_back(pullback(context.impl(), heads, p, 0.5, weights, Rows::Zero(6, 3)).keys);
    groups.push_back(learn_groups(context.impl(), c.shape, study, {.groups = 3, .steps = 20}));
  }
  for (size_t i = 1; i < keys.size(); ++i) {
    EXPECT_EQ(keys[i], keys[0]);
    EXPECT_EQ(groups[i], groups[0]);
  }
  Context context({.threads = 1});
  Random other(2, RandomUse::learn_start, 0);
  EXPECT_NE(relaxed_start(context.impl(), c.study(context), 3, other).keys,
            relaxed_start(context.impl(), c.study(context), 3, other).keys);
}

TEST(LearnGroups, StopsWhenTold) {
  const Found c(22, test::hide(22, 3, 2));
  Context context({.threads = 1});
  int steps = 0;
  const auto stop = [&] {
    if (++steps == 7) throw std::runtime_error("enough");
  };
  EXPECT_THROW(learn_groups(context.impl(), c.shape, c.study(context), {.groups = 3}, stop),
               std::runtime_error);
  EXPECT_EQ(steps, 7);
}

}  // namespace
}  // namespace gqa
