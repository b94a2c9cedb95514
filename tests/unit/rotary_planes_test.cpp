// Which rotary planes can go, and heads without them.
#include "regroup/rotary_planes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/hidden_groups.h"

namespace gqa {
namespace {

constexpr int64_t head_dim = 8;

struct Case {
  CalibrationWindows text;
  ModelConfig config;
  Heads heads;
  Rows inputs;

  explicit Case(double size_of_queries) {
    for (const int64_t n : {40, 1, 23}) text.add(std::vector<int32_t>(static_cast<size_t>(n), 1));
    config.head_dim = head_dim;
    std::mt19937_64 random(5);
    heads = test::random_heads(random, 2, 2, head_dim, 11, 10);
    heads.q *= size_of_queries;
    inputs = test::random_matrix(random, text.tokens(), 11).cast<float>();
  }
};

Rows output_of(const Case& c, const Heads& heads) {
  Context context({.threads = 2});
  const BlockShape shape(c.config, c.text, heads);
  BlockAttention block(context.impl(), shape, c.inputs);
  block.run(block_weights(heads));
  return block.output();
}

/// The squared change of the output when queries and keys lose all planes but these.
double change(const Case& c, const std::vector<int64_t>& planes) {
  Heads smaller = with_planes(c.heads, planes);
  EXPECT_EQ(smaller.head_dim, 2 * std::ssize(planes));
  // Attention with values of another size: each dimension of them in a head of its own turn.
  Rows sum = Rows::Zero(c.inputs.rows(), c.heads.o.rows());
  for (int64_t d = 0; d < head_dim; ++d) {
    for (int64_t g = 0; g < smaller.kv_heads(); ++g)
      smaller.v_of(g).row(0) = c.heads.v_of(g).row(d);
    for (int64_t h = 0; h < smaller.q_heads(); ++h) smaller.o_of(h).col(0) = c.heads.o_of(h).col(d);
    sum += output_of(c, smaller);
  }
  return static_cast<double>((sum - output_of(c, c.heads)).squaredNorm());
}

Matrix effects(const Case& c, int threads) {
  Context context({.threads = threads});
  const BlockShape shape(c.config, c.text, c.heads);
  BlockAttention block(context.impl(), shape, c.inputs);
  block.run(block_weights(c.heads));
  return plane_effects(shape, block, c.heads);
}

TEST(RotaryPlanes, EffectsAreTheChangeToFirstOrder) {
  const Case c(0.03);
  const Matrix costs = effects(c, 2);
  ASSERT_EQ(costs.rows(), head_dim / 2);
  EXPECT_EQ(costs, costs.transpose());
  for (const std::vector<int64_t>& gone :
       {std::vector<int64_t>{0}, {1}, {2}, {3}, {0, 1}, {1, 3}, {0, 2, 3}}) {
    std::vector<int64_t> kept;
    for (int64_t p = 0; p < head_dim / 2; ++p) {
      if (std::ranges::find(gone, p) == gone.end()) kept.push_back(p);
    }
    double cost = 0;
    for (const int64_t a : gone) {
      for (const int64_t b : gone) cost += costs(a, b);
    }
    // Scores of this size: what is left out is some percent.
    const double want = change(c, kept);
    EXPECT_NEAR(cost, want, 0.1 * want) << gone.size() << gone[0];
  }
}

TEST(RotaryPlanes, ThreadsChangeNoBit) {
  const Case c(1.0);
  EXPECT_EQ(effects(c, 1), effects(c, 3));
}

TEST(RotaryPlanes, UnusedOnesCostNothing) {
  Case c(1.0);
  for (int64_t h = 0; h < c.heads.q_heads(); ++h) {
    for (const int64_t row : {1, 5}) c.heads.q.row(h * head_dim + row).setZero();
  }
  EXPECT_LT(change(c, {0, 2, 3}), 1e-6 * change(c, {0, 1, 2}));
  EXPECT_EQ(effects(c, 2)(1, 1), 0.0);
  const Matrix energies = plane_energies(make_grams(c.heads, Vector(Vector::Ones(11))));
  EXPECT_EQ(energies(1, 1), 0.0);
  EXPECT_GT(energies(0, 0), 0.0);
  EXPECT_EQ(choose_planes(energies, 3, 1).front(), (std::vector<int64_t>{0, 2, 3}));
}

/// Sums over inputs that vary by themselves, head by head.
TEST(RotaryPlanes, EnergiesAreThoseOfScores) {
  const Case c(1.0);
  const Matrix energies = plane_energies(make_grams(c.heads, Vector(Vector::Ones(11))));
  for (int64_t p = 0; p < head_dim / 2; ++p) {
    double want = 0;
    for (int64_t h = 0; h < c.heads.q_heads(); ++h) {
      const auto of_plane = [&](const auto& head) {
        return head.row(p).squaredNorm() + head.row(p + head_dim / 2).squaredNorm();
      };
      want += of_plane(c.heads.q_of(h)) * of_plane(c.heads.k_of(h / 2));
    }
    EXPECT_NEAR(energies(p, p), want, 1e-9 * want);
  }
  EXPECT_EQ(Matrix(energies.diagonal().asDiagonal()), energies);
}

TEST(RotaryPlanes, WhatCancelsGoesTogether) {
  using Choices = std::vector<std::vector<int64_t>>;
  Matrix costs(3, 3);
  costs << 9.5, -9, 0, -9, 9, 0, 0, 0, 1;
  EXPECT_EQ(choose_planes(costs, 1, 1), (Choices{{2}}));
  EXPECT_EQ(choose_planes(costs, 1, 9), (Choices{{2}, {0}, {1}}));
  EXPECT_EQ(choose_planes(costs, 2, 2), (Choices{{0, 1}, {0, 2}}));
  EXPECT_EQ(choose_planes(costs, 3, 5), (Choices{{0, 1, 2}}));
}

}  // namespace
}  // namespace gqa
