#include "regroup/refine_block.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "regroup/balance.h"
#include "regroup/windows.h"

namespace gqa {
namespace {

/// Checks without a new least error: large steps gain late, when they have become smaller.
constexpr int first_patience = 6, patience = 4;

/// Steps are relative to the root mean square of where a matrix began.
Adam adam_for(const BlockWeights& start) {
  std::vector<float> scales;
  std::vector<size_t> sizes;
  for (const auto part : parts_of(start)) {
    scales.push_back(static_cast<float>(root_mean_square(part)));
    sizes.push_back(part.size());
  }
  return Adam(std::move(scales), sizes);
}

/// Wide models want smaller steps than narrow ones, and some of their layers smaller ones than
/// others: where the error has stopped falling too early, a layer goes on with less.
constexpr double lower_rate = 0.2, least_rate = 0.005;

/// Steps from `best` on, which keeps the best of them. Whether that was all that there is to try:
/// not where the error went up twofold, or has not fallen for a while.
bool descend(WindowedBlock& block, const WindowSplit& split, const RefineOptions& options,
             double rate, const std::function<void()>& step, BlockWeights& best,
             RefineResult& result) {
  BlockWeights weights = best;
  Adam adam = adam_for(weights);
  Turns turns(split.used, Random(options.seed, RandomUse::refine, options.layer));
  std::vector<int64_t> some(static_cast<size_t>(std::min(options.windows, std::ssize(split.used))));
  const int most_missed = rate == options.rate ? first_patience : patience;
  const int between = std::max(options.steps / refine_checks, 1);
  int missed = 0;
  for (int done = 0; done < options.steps;) {
    if (step) step();
    turns.draw(some);
    block.run(weights, some);
    const BlockWeights gradient = block.gradient();
    adam.step(parts_of(gradient), cosine_rate(rate, done, options.steps), parts_of(weights));
    ++done;
    ++result.steps;
    if (done % between != 0 && done < options.steps) continue;
    const double now = block.error(weights, split.checked);
    result.diverged = !std::isfinite(now);
    if (result.diverged) return true;
    if (now < result.after) {
      missed = 0;
      result.after = now;
      result.kept = result.steps;
      best = weights;
    } else if (++missed == most_missed || now > 2 * result.after) {
      return false;
    }
  }
  return true;
}

}  // namespace

RefineResult refine_block(Context::Impl& context, const BlockShape& shape, const BlockGoal& goal,
                          const Heads& heads, const RefineOptions& options,
                          const std::function<void()>& step) {
  const WindowSplit split(shape.windows());
  const int64_t windows = std::min(options.windows, std::ssize(split.used));
  WindowedBlock block(context, shape, goal, windows);
  Heads result_heads = balanced(heads);
  BlockWeights best = block_weights(result_heads);
  for (Matrix Heads::*matrix : {&Heads::q, &Heads::k, &Heads::v, &Heads::o}) {
    result_heads.*matrix = Matrix();  // gives the memory back
  }
  RefineResult result;
  result.before = result.after = block.error(best, split.checked);
  for (double rate = options.rate; rate >= least_rate * options.rate; rate *= lower_rate) {
    if (descend(block, split, options, rate, step, best, result)) break;
  }
  for (const int64_t window : split.checked) {
    result.each.push_back(block.error(best, std::span(&window, 1)));
  }
  if (result.kept > 0) {
    result.heads = with_weights(std::move(result_heads), best);
  } else {
    result.heads = heads;
  }
  return result;
}

}  // namespace gqa
