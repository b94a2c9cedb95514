// Learning which heads become one: the relaxed layer, its gradient, and what is found.
#include "regroup/learn_groups.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "regroup/relaxed_start.h"
#include "support/block_case.h"

namespace gqa {
namespace {

using test::BlockCase;
using test::Hidden;

constexpr double epsilon = 1.2e-7;

const std::vector<int64_t> lengths{37, 50, 61, 40, 33, 70, 55, 90, 41};

Rows random_rows(std::mt19937_64& random, int64_t rows, int64_t cols) {
  return test::random_matrix(random, rows, cols).cast<float>();
}

/// 4 KV heads of 6, read by 5 query heads, of 3 shared ones.
RelaxedHeads some_relaxed(std::mt19937_64& random) {
  return {.head_dim = 6,
          .logits = random_rows(random, 4, 3),
          .keys = random_rows(random, 18, 11),
          .values = random_rows(random, 18, 11),
          .key_factors = random_rows(random, 24, 3),
          .value_maps = random_rows(random, 24, 18),
          .q = random_rows(random, 30, 11),
          .o = random_rows(random, 10, 30)};
}

constexpr double warm = 0.7;

/// sum(cotangent * mixed()), in double.
double along(Context& context, const RelaxedHeads& heads, const BlockWeights& cotangent) {
  return mixed(context.impl(), heads, assignment(heads.logits, warm)).dot(cotangent);
}

struct Part {
  const char* name;
  Rows RelaxedHeads::*rows;
};
const Part all_parts[] = {{"logits", &RelaxedHeads::logits},
                          {"keys", &RelaxedHeads::keys},
                          {"values", &RelaxedHeads::values},
                          {"key factors", &RelaxedHeads::key_factors},
                          {"value maps", &RelaxedHeads::value_maps},
                          {"q", &RelaxedHeads::q},
                          {"o", &RelaxedHeads::o}};

/// Of all but the logits the mixture is linear, so that differences are exact whatever the step; of
/// logits they are extrapolated: an error of h^4.
TEST(RelaxedHeads, PullbackIsTheGradient) {
  std::mt19937_64 random(1);
  Context context({.threads = 2});
  const RelaxedHeads at = some_relaxed(random);
  const BlockWeights shape = mixed(context.impl(), at, assignment(at.logits, warm));
  BlockWeights cotangent = BlockWeights::zeros_like(shape);
  for (Rows* m : {&cotangent.q, &cotangent.k, &cotangent.v, &cotangent.o}) {
    *m = random_rows(random, m->rows(), m->cols());
  }
  const RelaxedHeads by =
      pullback(context.impl(), at, assignment(at.logits, warm), warm, cotangent, Rows::Zero(4, 3));
  for (const Part& part : all_parts) {
    const Rows& m = at.*part.rows;
    const Rows change = random_rows(random, m.rows(), m.cols());
    const auto slope = [&](float h) {
      RelaxedHeads high = at;
      RelaxedHeads low = at;
      high.*part.rows += h * change;
      low.*part.rows -= h * change;
      return (along(context, high, cotangent) - along(context, low, cotangent)) /
             (2 * static_cast<double>(h));
    };
    const double numeric =
        part.rows == &RelaxedHeads::logits ? (4 * slope(0.05f) - slope(0.1f)) / 3 : slope(0.5f);
    const double got = (by.*part.rows).cwiseProduct(change).cast<double>().sum();
    // Sums of some hundred products of this size; steps of 1/20 magnify their roundings.
    const double size = static_cast<double>(shape.k.norm() * cotangent.k.norm() +
                                            shape.v.norm() * cotangent.v.norm() +
                                            cotangent.q.norm() + cotangent.o.norm());
    EXPECT_NEAR(got, numeric, 200 * epsilon * size + 1e-3 * std::abs(got)) << part.name;
    EXPECT_GT(std::abs(got), 1e-3 * size) << part.name;
  }
}

/// What the caller adds for the assignment goes through the softmax, too.
TEST(RelaxedHeads, GradientByTheAssignmentIsAdded) {
  std::mt19937_64 random(2);
  Context context({.threads = 1});
  const RelaxedHeads at = some_relaxed(random);
  const Rows p = assignment(at.logits, warm);
  const BlockWeights none = BlockWeights::zeros_like(mixed(context.impl(), at, p));
  const Rows by_p = random_rows(random, 4, 3);
  const RelaxedHeads by = pullback(context.impl(), at, p, warm, none, by_p);
  const Rows change = random_rows(random, 4, 3);
  const float h = 0.02f;
  const Rows moved =
      assignment(at.logits + h * change, warm) - assignment(at.logits - h * change, warm);
  const double numeric = static_cast<double>(moved.cwiseProduct(by_p).sum() / (2 * h));
  EXPECT_NEAR(static_cast<double>(by.logits.cwiseProduct(change).sum()), numeric, 2e-3);
  EXPECT_GT(std::abs(numeric), 0.02);
  EXPECT_EQ(by.keys.norm(), 0);
}

/// Factors go to the queries, maps to the outputs.
TEST(RelaxedHeads, HardAssignmentsAreAGroupedLayer) {
  const BlockCase c(3, 0, {0, 2, 3, 5, 6}, lengths);
  std::mt19937_64 random(4);
  Context context({.threads = 2});
  RelaxedHeads heads = some_relaxed(random);
  const BlockWeights own = block_weights(c.heads);
  heads.q = own.q;
  heads.o = own.o;
  const HeadGroups groups{{0, 2}, {1}, {3}};
  heads.logits.setZero();
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const int64_t a : groups[g]) heads.logits(a, static_cast<int64_t>(g)) = 100;
  }
  BlockAttention relaxed(context.impl(), c.shape, c.inputs);
  relaxed.run(mixed(context.impl(), heads, assignment(heads.logits, 1)));

  Heads grouped = regrouped(c.heads, groups);
  grouped.k = heads.keys.cast<double>();
  grouped.v = heads.values.cast<double>();
  for (size_t g = 0; g < groups.size(); ++g) {
    int64_t to = grouped.q_begin[g];
    for (const int64_t a : groups[g]) {
      const auto at = static_cast<int64_t>(g);
      const Matrix factors = heads.key_factors.block(a * 6, at, 6, 1).cast<double>();
      const ComplexVector t = planes(factors).col(0);
      const Matrix map = heads.value_maps.block(a * 6, at * 6, 6, 6).cast<double>();
      for (const int64_t h : query_heads_of(c.heads, {a})) {
        grouped.q_of(to) = from_planes(t.conjugate().asDiagonal() * planes(c.heads.q_of(h)));
        grouped.o_of(to) = Matrix(c.heads.o_of(h) * map);
        ++to;
      }
    }
  }
  const BlockShape shape(test::block_config(6, 0), c.text, grouped);
  BlockAttention plain(context.impl(), shape, c.inputs);
  plain.run(block_weights(grouped));
  EXPECT_LT((relaxed.output() - plain.output()).norm(), 1e-4f * plain.output().norm());
}

TEST(RelaxedHeads, RoundingKeepsTogetherWhatSharesItsAssignment) {
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
