#include "regroup/refine_block.h"

#include <algorithm>
#include <cmath>

#include "regroup/balance.h"
#include "regroup/windows.h"

namespace gqa {
namespace {

constexpr int patience = 6;  ///< checks without a new least error

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

/// Wide models want smaller steps than narrow ones: a layer whose error did not fall begins again
/// with less. SmolLM2-135M's error falls at a fifth or a 25th of what is best for models of width
/// 64 to 128.
constexpr double lower_rate = 0.2, least_rate = 0.03;

/// Steps from `best` on, until the error has not fallen for a while. Leaves the best in `best`.
void descend(WindowedBlock& block, const WindowSplit& split, const RefineOptions& options,
             double rate, const std::function<void()>& step, BlockWeights& best,
             RefineResult& result) {
  BlockWeights weights = best;
  Adam adam = adam_for(weights);
  Turns turns(split.used, Random(options.seed, RandomUse::refine, options.layer));
  std::vector<int64_t> some(static_cast<size_t>(std::min(options.windows, std::ssize(split.used))));
  const int between = std::max(options.steps / refine_checks, 1);
  result.steps = 0;
  for (int missed = 0; result.steps < options.steps && missed < patience;) {
    if (step) step();
    turns.draw(some);
    block.run(weights, some);
    const BlockWeights gradient = block.gradient();
    adam.step(parts_of(gradient), cosine_rate(rate, result.steps, options.steps),
              parts_of(weights));
    ++result.steps;
    if (result.steps % between != 0 && result.steps < options.steps) continue;
    const double now = block.error(weights, split.checked);
    result.diverged = !std::isfinite(now);
    if (result.diverged) return;
    ++missed;
    if (now >= result.after) continue;
    missed = 0;
    result.after = now;
    result.kept = result.steps;
    best = weights;
  }
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
    descend(block, split, options, rate, step, best, result);
    if (result.kept > 0 || result.diverged) break;
  }
  if (result.kept > 0) {
    result.heads = with_weights(std::move(result_heads), best);
  } else {
    result.heads = heads;
  }
  return result;
}

}  // namespace gqa
