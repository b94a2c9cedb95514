// Fitting a layer's attention to an output that is wanted of it: outputs in closed form, all of it
// by gradients.
#include "regroup/refine_block.h"

#include <gtest/gtest.h>

#include "regroup/balance.h"
#include "regroup/refit_outputs.h"
#include "regroup/windows.h"
#include "support/block_case.h"

namespace gqa {
namespace {

using test::BlockCase;

const std::vector<int64_t> lengths{37, 50, 61, 40, 33, 70, 55, 90, 41};

Rows output_of(Context& context, const BlockCase& c, const Heads& heads) {
  BlockAttention block(context.impl(), c.shape, c.inputs);
  block.run(block_weights(heads));
  return block.output();
}

/// Somewhat beside: there is one minimum near.
Heads beside(Heads heads, const Heads& other, double much) {
  heads.q += much * other.q;
  heads.k += much * other.k;
  heads.v += much * other.v;
  heads.o += much * other.o;
  return heads;
}

double relative_error(const Rows& got, const Rows& want) {
  return static_cast<double>((got - want).squaredNorm() / want.squaredNorm());
}

TEST(RefineBlock, FindsWhatIsThere) {
  const BlockCase c(1, 0, {0, 2, 5}, lengths);
  const BlockCase other(2, 0, {0, 2, 5}, lengths);
  Context context({.threads = 2});
  const Rows target = output_of(context, c, c.heads);
  const Heads start = beside(c.heads, other.heads, 0.1);
  const RefineResult result = refine_block(context.impl(), c.shape, {c.inputs, target}, start,
                                           {.steps = 400, .rate = 0.05});
  EXPECT_GT(result.before, 1e-3);
  EXPECT_LT(result.after, 0.01 * result.before);
  EXPECT_EQ(result.steps, 400);
  EXPECT_GT(result.kept, 300);
  EXPECT_FALSE(result.diverged);
  EXPECT_LT(relative_error(output_of(context, c, result.heads), target), 0.02 * result.before);
}

/// Steps as large as the matrices lead away, as some do at a fifth; a 25th of them leads there.
TEST(RefineBlock, GoesOnWithLessWhereStepsAreTooLarge) {
  const BlockCase c(1, 0, {0, 2, 5}, lengths);
  const BlockCase other(2, 0, {0, 2, 5}, lengths);
  Context context({.threads = 2});
  const Rows target = output_of(context, c, c.heads);
  for (const double much : {0.02, 0.3}) {
    const Heads start = beside(c.heads, other.heads, much);
    const RefineResult result = refine_block(context.impl(), c.shape, {c.inputs, target}, start,
                                             {.steps = 100, .rate = 1.0});
    EXPECT_LT(result.after, 0.1 * result.before) << much;
    EXPECT_GT(result.kept, 100) << much;
    EXPECT_LE(result.kept, result.steps);
    EXPECT_LT(result.steps, 150) << much;  // what leads away is seen at the first check
  }
}

/// Noise in the first rows, `much` times as large as the target if it were in all of them.
void add_noise(Rows& target, float much, int64_t rows, uint64_t seed) {
  std::mt19937_64 random(seed);
  const Rows noise = test::random_matrix(random, target.rows(), target.cols()).cast<float>();
  target.topRows(rows) += much * target.norm() / noise.norm() * noise.topRows(rows);
}

double window_error(Context& context, const BlockCase& c, const Heads& heads, const Rows& target,
                    size_t window) {
  const int64_t row = c.text.begin[window];
  const int64_t n = c.text.begin[window + 1] - row;
  return relative_error(output_of(context, c, heads).middleRows(row, n), target.middleRows(row, n));
}

/// On the eighth of nine windows.
double held_out_error(Context& context, const BlockCase& c, const Heads& heads,
                      const Rows& target) {
  return window_error(context, c, heads, target, 7);
}

/// As test::naive gradients would: each of the four matrices alone gets it wrong.
TEST(RefineBlock, MovesAllFour) {
  const BlockCase c(3, 20, {0, 3, 4}, lengths);
  const BlockCase other(4, 0, {0, 3, 4}, lengths);
  Context context({.threads = 2});
  const Rows target = output_of(context, c, c.heads);
  for (const auto part : {&Heads::q, &Heads::k, &Heads::v, &Heads::o}) {
    Heads start = c.heads;
    start.*part += 0.2 * other.heads.*part;
    const RefineResult result = refine_block(context.impl(), c.shape, {c.inputs, target}, start,
                                             {.steps = 200, .rate = 0.05});
    EXPECT_LT(result.after, 0.2 * result.before);
  }
}

TEST(RefineBlock, ReportsTheErrorOnHeldOutWindows) {
  const BlockCase c(5, 0, {0, 2, 4}, lengths);
  const BlockCase other(6, 0, {0, 2, 4}, lengths);
  Context context({.threads = 1});
  const Rows target = output_of(context, other, other.heads);
  const RefineResult result =
      refine_block(context.impl(), c.shape, {c.inputs, target}, c.heads, {.steps = 8});
  const double before = held_out_error(context, c, c.heads, target);
  const double after = held_out_error(context, c, result.heads, target);
  EXPECT_NEAR(result.before, before, 1e-5 * before);
  EXPECT_NEAR(result.after, after, 1e-5 * after);
}

/// What can be learned of noise by heart is of no use elsewhere.
TEST(RefineBlock, StopsWhereHeldOutTextGainsNothing) {
  const BlockCase c(7, 0, {0, 2, 4}, lengths);
  Context context({.threads = 2});
  Rows target = output_of(context, c, c.heads);
  add_noise(target, 0.5f, target.rows(), 8);
  const RefineResult result =
      refine_block(context.impl(), c.shape, {c.inputs, target}, c.heads, {.steps = 240});
  EXPECT_EQ(result.kept, 0);
  EXPECT_LE(result.steps, 360);  // at four rates
  EXPECT_EQ(result.after, result.before);
  EXPECT_EQ(result.heads.q, c.heads.q);
  EXPECT_EQ(result.heads.k, c.heads.k);
  EXPECT_EQ(result.heads.v, c.heads.v);
  EXPECT_EQ(result.heads.o, c.heads.o);
}

TEST(RefineBlock, ReportsTheErrorOfEachWindow) {
  const BlockCase c(7, 0, {0, 2, 4}, {9, 14, 5});  // too few to hold one out
  const BlockCase other(8, 0, {0, 2, 4}, {9, 14, 5});
  Context context({.threads = 1});
  const Rows target = output_of(context, c, c.heads);
  const RefineResult result = refine_block(context.impl(), c.shape, {c.inputs, target},
                                           beside(c.heads, other.heads, 0.1), {.steps = 48});
  ASSERT_GT(result.kept, 0);
  ASSERT_EQ(std::ssize(result.each), 3);
  for (size_t w = 0; w < 3; ++w) {
    const double want = window_error(context, c, result.heads, target, w);
    EXPECT_NEAR(result.each[w], want, 1e-4 * want) << w;
  }
}

TEST(RefineBlock, FallsBackWhereItDiverges) {
  const BlockCase c(9, 0, {0, 2, 4}, lengths);
  const BlockCase other(10, 0, {0, 2, 4}, lengths);
  Context context({.threads = 2});
  const Rows target = output_of(context, other, other.heads);
  const RefineResult result = refine_block(context.impl(), c.shape, {c.inputs, target}, c.heads,
                                           {.steps = 50, .rate = 1e30});
  EXPECT_TRUE(result.diverged);
  EXPECT_EQ(result.kept, 0);
  EXPECT_EQ(result.heads.q, c.heads.q);
}

TEST(RefineBlock, ThreadsChangeNoBit) {
  const BlockCase c(11, 0, {0, 2, 4}, lengths);
  const BlockCase other(12, 0, {0, 2, 4}, lengths);
  std::vector<Heads> results;
  for (const int threads : {1, 2, 5}) {
    Context context({.threads = threads});
    const Rows target = output_of(context, c, c.heads);
    results.push_back(refine_block(context.impl(), c.shape, {c.inputs, target},
                                   beside(c.heads, other.heads, 0.3), {.steps = 24, .seed = 3})
                          .heads);
  }
  for (const Heads& heads : results) {
    EXPECT_EQ(heads.q, results[0].q);
    EXPECT_EQ(heads.k, results[0].k);
    EXPECT_EQ(heads.v, results[0].v);
    EXPECT_EQ(heads.o, results[0].o);
  }
  EXPECT_NE(results[0].q, beside(c.heads, other.heads, 0.3).q);
}

TEST(RefineBlock, HoldsOutEveryEighthWindowOrTheLastOfAFew) {
  const auto held = [](int64_t windows) {
    std::vector<int64_t> which;
    for (int64_t w = 0; w < windows; ++w) {
      if (is_held_out(w, windows)) which.push_back(w);
    }
    return which;
  };
  using Which = std::vector<int64_t>;
  EXPECT_EQ(held(1), Which());
  EXPECT_EQ(held(3), Which());
  EXPECT_EQ(held(4), Which({3}));
  EXPECT_EQ(held(8), Which({7}));
  EXPECT_EQ(held(17), Which({7, 15}));
}

TEST(RefineBlock, DoesWithOneWindow) {
  const BlockCase c(13, 0, {0, 2}, {60});
  const BlockCase other(14, 0, {0, 2}, {60});
  Context context({.threads = 2});
  const Rows target = output_of(context, c, c.heads);
  const RefineResult result = refine_block(context.impl(), c.shape, {c.inputs, target},
                                           beside(c.heads, other.heads, 0.1), {.steps = 60});
  EXPECT_LT(result.after, result.before);
}

/// Whatever basis a head comes in, what is learned begins with the same sizes.
TEST(Balanced, IsTheSameFunctionAndOfASize) {
  BlockCase c(15, 0, {0, 2, 5}, lengths);
  Context context({.threads = 2});
  const Rows want = output_of(context, c, c.heads);
  std::mt19937_64 random(16);
  c.heads.v_of(1).setZero();  // a dead head must not become NaN
  const Rows without = output_of(context, c, c.heads);
  EXPECT_GT(relative_error(without, want), 1e-3);
  const Heads even = balanced(c.heads);
  EXPECT_LT(relative_error(output_of(context, c, even), without), 1e-10);
  for (int64_t i = 0; i < c.heads.head_dim; ++i) {
    const double values = even.v_of(0).row(i).squaredNorm() / static_cast<double>(even.inputs());
    const double outputs = (even.o_of(0).col(i).squaredNorm() + even.o_of(1).col(i).squaredNorm()) /
                           static_cast<double>(2 * even.o.rows());
    EXPECT_NEAR(values, outputs, 1e-9 * values);
    const int64_t p = i % (c.heads.head_dim / 2);
    const auto plane = [&](const auto& head) {
      return head.row(p).squaredNorm() + head.row(p + c.heads.head_dim / 2).squaredNorm();
    };
    const double queries = (plane(even.q_of(0)) + plane(even.q_of(1))) / 2;
    EXPECT_NEAR(plane(even.k_of(0)), queries, 1e-9 * queries);
  }
}

TEST(RefitOutputs, FindsTheOutputsThatAreThere) {
  const BlockCase c(17, 0, {0, 2, 4}, lengths);
  const BlockCase other(18, 0, {0, 2, 4}, lengths);
  Context context({.threads = 2});
  const Rows target = output_of(context, c, c.heads);
  Heads start = c.heads;
  start.o = other.heads.o;
  const OutputFit fit = refit_outputs(context.impl(), c.shape, {c.inputs, target}, start);
  EXPECT_NEAR(fit.before, held_out_error(context, c, start, target), 1e-5 * fit.before);
  EXPECT_LT(fit.after, 1e-6 * fit.before);
  EXPECT_NEAR(fit.after, held_out_error(context, c, fit.heads, target), 1e-8);
  EXPECT_EQ(fit.heads.q, start.q);
  const OutputFit again = refit_outputs(context.impl(), c.shape, {c.inputs, target}, c.heads);
  EXPECT_LE(again.after, again.before);
}

/// Noise of the windows that teach does not hold in those that do not.
TEST(RefitOutputs, KeepsOutputsThatNothingBeats) {
  const BlockCase c(19, 0, {0, 2, 4}, lengths);
  Context context({.threads = 2});
  Rows target = output_of(context, c, c.heads);
  add_noise(target, 3, c.text.begin[7], 20);
  const OutputFit fit = refit_outputs(context.impl(), c.shape, {c.inputs, target}, c.heads);
  EXPECT_LT(fit.before, 1e-6);
  EXPECT_EQ(fit.after, fit.before);
  EXPECT_EQ(fit.heads.o, c.heads.o);
}

/// Beside noise that leads further away than outputs are off, half of the way is still better.
TEST(RefitOutputs, GoesPartOfTheWayWhereNoiseIsLarge) {
  const BlockCase c(23, 0, {0, 2, 4}, lengths);
  const BlockCase other(24, 0, {0, 2, 4}, lengths);
  Context context({.threads = 2});
  Rows target = output_of(context, c, c.heads);
  add_noise(target, 0.5f, c.text.begin[7], 25);
  Heads start = c.heads;
  start.o += 0.1 * other.heads.o;
  const OutputFit fit = refit_outputs(context.impl(), c.shape, {c.inputs, target}, start);
  EXPECT_LT(fit.after, 0.9 * fit.before);
}

/// One row that nothing explains, far larger than the others, would decide alone.
TEST(RefitOutputs, WeighsTokens) {
  const BlockCase c(21, 0, {0, 2, 4}, lengths);
  const BlockCase other(22, 0, {0, 2, 4}, lengths);
  Context context({.threads = 2});
  const Rows clean = output_of(context, c, c.heads);
  Rows target = clean;
  target.row(c.text.begin[2] + 7).setConstant(1000);
  Heads start = c.heads;
  start.o = other.heads.o;
  const auto error = [&](const TokenWeights& weights) {
    const BlockGoal goal{.inputs = c.inputs, .target = target, .weights = weights};
    return held_out_error(context, c, refit_outputs(context.impl(), c.shape, goal, start).heads,
                          clean);
  };
  TokenWeights weights(static_cast<size_t>(target.rows()), 1.0f);
  weights[static_cast<size_t>(c.text.begin[2] + 7)] = 1e-6f;
  EXPECT_LT(error(weights), 1e-3 * error({}));
}

}  // namespace
}  // namespace gqa
