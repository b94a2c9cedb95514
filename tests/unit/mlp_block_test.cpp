// A layer's MLP on text, with its derivative; refining that looks behind it.
#include "regroup/mlp_block.h"

#include <gtest/gtest.h>

#include <cmath>

#include "regroup/refine_block.h"
#include "support/block_case.h"

namespace gqa {
namespace {

using test::BlockCase;
using test::random_matrix;

constexpr double eps = 1e-5;

/// Weights of an MLP, and a layer that refers to them.
struct MlpCase {
  Rows gate, up, down;
  LayerWeights layer;

  MlpCase(uint64_t seed, int64_t width, int64_t inner, bool biased) {
    std::mt19937_64 random(seed);
    gate = random_matrix(random, inner, width).cast<float>();
    up = random_matrix(random, inner, width).cast<float>();
    down = 0.3f * random_matrix(random, width, inner).cast<float>();
    const auto vector = [&](int64_t n) {
      const Rows row = random_matrix(random, 1, n).cast<float>();
      return std::vector<float>(row.data(), row.data() + n);
    };
    layer.mlp_norm = vector(width);
    const auto refer = [&](const Rows& w, Linear& linear) {
      linear.weight = w.data();
      linear.in = w.cols();
      linear.out = w.rows();
      if (biased) linear.bias = vector(w.rows());
    };
    refer(gate, layer.gate);
    refer(up, layer.up);
    refer(down, layer.down);
  }
};

Vector affine(const Rows& w, const std::vector<float>& bias, const Vector& x) {
  Vector y = w.cast<double>() * x;
  for (size_t i = 0; i < bias.size(); ++i)
    y[static_cast<int64_t>(i)] += static_cast<double>(bias[i]);
  return y;
}

/// In double, by the definition.
Vector naive(const MlpCase& c, const Vector& hidden) {
  const double mean = hidden.squaredNorm() / static_cast<double>(hidden.size());
  Vector normed = hidden / std::sqrt(mean + eps);
  for (int64_t i = 0; i < normed.size(); ++i) {
    normed[i] *= static_cast<double>(c.layer.mlp_norm[static_cast<size_t>(i)]);
  }
  const Vector opened = affine(c.gate, c.layer.gate.bias, normed);
  Vector product = affine(c.up, c.layer.up.bias, normed);
  for (int64_t i = 0; i < product.size(); ++i) product[i] *= opened[i] / (1 + std::exp(-opened[i]));
  return hidden + affine(c.down, c.layer.down.bias, product);
}

Rows some_hidden(int64_t tokens, int64_t width) {
  std::mt19937_64 random(77);
  return 1.5f * random_matrix(random, tokens, width).cast<float>();
}

TEST(MlpBlock, IsItsDefinition) {
  for (const bool biased : {false, true}) {
    const MlpCase c(1, 11, 23, biased);
    Context context({.threads = 3});
    MlpBlock mlp(context.impl(), c.layer, eps);
    const Rows hidden = some_hidden(37, 11);
    const Rows got = mlp.run(hidden);
    for (int64_t r = 0; r < hidden.rows(); ++r) {
      const Vector want = naive(c, hidden.row(r).transpose().cast<double>());
      // Sums of 11 and 23 terms, some of them large against the sum.
      EXPECT_LT((got.row(r).transpose().cast<double>() - want).norm(), 300 * 1.2e-7 * want.norm());
    }
  }
}

TEST(MlpBlock, PullbackIsTheDerivative) {
  for (const bool biased : {false, true}) {
    const MlpCase c(2, 11, 23, biased);
    Context context({.threads = 2});
    MlpBlock mlp(context.impl(), c.layer, eps);
    const Rows hidden = some_hidden(37, 11);
    std::mt19937_64 random(3);
    const Rows cotangent = random_matrix(random, 37, 11).cast<float>();
    mlp.run(hidden);
    const Rows got = mlp.pullback(cotangent);
    constexpr double h = 1e-5;  // central: an error of h^2
    for (int64_t r = 0; r < hidden.rows(); ++r) {
      Vector want(hidden.cols());
      for (int64_t i = 0; i < hidden.cols(); ++i) {
        Vector more = hidden.row(r).transpose().cast<double>(), less = more;
        more[i] += h;
        less[i] -= h;
        want[i] =
            cotangent.row(r).cast<double>().dot((naive(c, more) - naive(c, less)).transpose()) /
            (2 * h);
      }
      EXPECT_LT((got.row(r).transpose().cast<double>() - want).norm(), 1e-5 * want.norm());
    }
  }
}

TEST(MlpBlock, ThreadsChangeNoBit) {
  const MlpCase c(4, 11, 23, true);
  const Rows hidden = some_hidden(300, 11);
  std::vector<Rows> results;
  for (const int threads : {1, 2, 5}) {
    Context context({.threads = threads});
    MlpBlock mlp(context.impl(), c.layer, eps);
    results.push_back(mlp.run(hidden));
    results.push_back(mlp.pullback(hidden));
  }
  for (size_t i = 2; i < results.size(); ++i) EXPECT_EQ(results[i], results[i % 2]);
}

const std::vector<int64_t> windows{3, 1};

/// The gradient of the whole error on these windows, along a direction, by finite differences.
void expect_gradient(WindowedBlock& block, const BlockWeights& at, const BlockWeights& change) {
  block.run(at, windows);
  const double slope = block.gradient().dot(change);
  const auto error = [&](float step) {
    BlockWeights moved = at;
    moved.add(step, change);
    return block.run(moved, windows) / 2;
  };
  const float h = 2e-3f;
  const double wide = (error(h) - error(-h)) / (2 * static_cast<double>(h));
  const double narrow = (error(h / 2) - error(-h / 2)) / static_cast<double>(h);
  EXPECT_NEAR(slope, (4 * narrow - wide) / 3, 2e-3 * std::abs(slope));
}

TEST(WindowedBlock, GradientLooksBehindTheMlp) {
  const BlockCase c(5, 0, {0, 2, 3}, {37, 20, 41, 30});
  const BlockCase other(6, 0, {0, 2, 3}, {37, 20, 41, 30});
  const MlpCase m(7, 10, 24, false);
  Context context({.threads = 2});
  MlpBlock mlp(context.impl(), m.layer, eps);
  Rows hidden = some_hidden(c.inputs.rows(), 10);
  const Rows target = some_hidden(c.inputs.rows(), 10).reverse();
  BlockGoal goal{.inputs = c.inputs, .target = target, .mlp = &mlp, .hidden = hidden};
  const BlockWeights at = block_weights(c.heads), change = block_weights(other.heads);
  WindowedBlock block(context.impl(), c.shape, goal, 2);
  const double without =
      WindowedBlock(context.impl(), c.shape, {c.inputs, target}, 2).run(at, windows);
  const double all_alike = block.run(at, windows);
  EXPECT_GT(all_alike, 1.02 * without);
  expect_gradient(block, at, change);
  goal.weights.assign(static_cast<size_t>(c.inputs.rows()), 0.25f);
  hidden.row(c.shape.window_begin[1] + 4) *= 50;  // in a window that runs: behind it weighs little
  WindowedBlock weighed(context.impl(), c.shape, goal, 2);
  EXPECT_LT(weighed.run(at, windows), 0.6 * all_alike);
  expect_gradient(weighed, at, change);
}

/// Squares count up to 16 medians of them.
TEST(TokenWeights, BoundWhatOneTokenCounts) {
  EXPECT_EQ(weights_by_size({}), TokenWeights());
  EXPECT_EQ(weights_by_size({0, 0, 0}), TokenWeights());
  EXPECT_EQ(weights_by_size({1, 2, 3, 4, 48}), TokenWeights());
  EXPECT_EQ(weights_by_size({1, 2, 96, 4, 1}), TokenWeights({1, 1, 1.0f / 3, 1, 1}));
  Rows rows = some_hidden(5, 3);
  const TokenWeights weights{1, 0.25f, 0, 1, 4};
  Rows by_roots = rows;
  weigh_by_roots(by_roots, weights);
  EXPECT_NEAR(squared_norm(rows, weights), squared_norm(by_roots, {}),
              1e-6 * squared_norm(rows, weights));
  EXPECT_EQ(slice(weights, 1, 2), TokenWeights({0.25f, 0}));
  const Rows before = rows;
  weigh(rows, weights);
  EXPECT_EQ(rows.row(1), 0.25f * before.row(1));
  EXPECT_EQ(rows.row(3), before.row(3));
  EXPECT_EQ(row_squares(before + rows).at(3), 4 * row_squares(before).at(3));
}

/// A goal that the output alone says nothing of: it is matched already, but not where that shows.
TEST(RefineBlock, MatchesWhatTheMlpMakesOfIt) {
  const std::vector<int64_t> lengths{37, 50, 61, 40, 33, 70, 55, 90, 41};
  const BlockCase c(8, 0, {0, 2, 4}, lengths);
  const BlockCase other(9, 0, {0, 2, 4}, lengths);
  const MlpCase m(10, 10, 24, false);
  Context context({.threads = 2});
  MlpBlock mlp(context.impl(), m.layer, eps);
  const Rows hidden = some_hidden(c.inputs.rows(), 10);
  BlockAttention block(context.impl(), c.shape, c.inputs);
  block.run(block_weights(other.heads));
  const Rows target = block.output();
  const auto behind = [&](const Heads& heads) {
    block.run(block_weights(heads));
    const Rows got = mlp.run(hidden + block.output());
    return (got - mlp.run(hidden + target)).squaredNorm();
  };
  const RefineOptions options{.steps = 120};
  const BlockGoal goal{.inputs = c.inputs, .target = target, .mlp = &mlp, .hidden = hidden};
  const Heads blind =
      refine_block(context.impl(), c.shape, {c.inputs, target}, c.heads, options).heads;
  const RefineResult seeing = refine_block(context.impl(), c.shape, goal, c.heads, options);
  EXPECT_LT(seeing.after, seeing.before);
  EXPECT_LT(behind(seeing.heads), 0.95 * behind(blind));
}

}  // namespace
}  // namespace gqa
