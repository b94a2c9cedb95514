// A layer whose heads are mixtures: its gradient, and that hard ones are a grouped layer.
#include "regroup/relaxed_heads.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support/block_case.h"

namespace gqa {
namespace {

using test::BlockCase;

constexpr double epsilon = 1.2e-7;

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
  const BlockCase c(3, 0, {0, 2, 3, 5, 6});
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

}  // namespace
}  // namespace gqa
