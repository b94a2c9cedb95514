#include "convert/calibration_time.h"

#include <algorithm>

#include "convert/calibration_run.h"
#include "convert/grouping.h"
#include "convert/learned_groups.h"
#include "core/checked.h"
#include "regroup/learn_groups.h"
#include "regroup/refine_block.h"
#include "regroup/windows.h"

namespace gqa {
namespace {

/// Pairs of a query and a key that it sees.
double pairs(int64_t n) { return 0.5 * static_cast<double>(n) * static_cast<double>(n + 1); }

BlockSize block_of(const ModelConfig& config, int64_t layer) {
  return {config.width + (config.attention_bias ? 1 : 0), config.width,
          config.q_heads * config.head_dim,
          config.kv_heads[static_cast<size_t>(layer)] * config.head_dim};
}

/// 2 * tokens * (inputs * (q + 2 kv) + q * width): q, k and v from the inputs, the output from q.
double projection_flops(const BlockSize& b, double tokens) {
  return 2 * tokens * static_cast<double>(b.inputs * (b.q + 2 * b.kv) + b.q * b.width);
}

/// Sums over windows of the text.
struct TextSums {
  double all = 0;      ///< over all windows
  double checked = 0;  ///< over those that are held out, or all where none is
  double step = 0;     ///< over as many as a step takes, on average
};

template <typename Flops>
TextSums sums_over(const CalibrationWindows& text, const Flops& flops) {
  TextSums sums;
  const int64_t windows = std::ssize(text.windows);
  int64_t used = 0;
  double used_sum = 0;
  for (int64_t w = 0; w < windows; ++w) {
    const double one = flops(std::ssize(text.windows[static_cast<size_t>(w)]));
    sums.all += one;
    if (is_held_out(w, windows)) {
      sums.checked += one;
    } else {
      ++used;
      used_sum += one;
    }
  }
  if (used == windows) sums.checked = sums.all;
  const int64_t a_step = std::min(RefineOptions().windows, used);
  sums.step =
      used_sum / static_cast<double>(std::max<int64_t>(used, 1)) * static_cast<double>(a_step);
  return sums;
}

/// Refining one layer: outputs in closed form, then steps, and checks at the start and on the way.
struct Refining {
  TextSums converted;  ///< operations of the layer's attention,
  TextSums behind;     ///< of its MLP,
  TextSums gradient;   ///< and of what follows them in a step
  int64_t steps;

  void add_to(CalibrationWork& work, double times) const {
    const int64_t between = std::max<int64_t>(steps / refine_checks, 1);
    const auto checks = static_cast<double>(1 + ceil_div(steps, between));
    const auto turns = static_cast<double>(steps);
    if (steps > 0) work.forward += times * converted.all;
    work.forward += times * (turns * converted.step + checks * converted.checked);
    work.mlp += times * (behind.all + checks * behind.checked);
    work.backward += times * turns * gradient.step;
  }
};

/// All heads' mixtures learned, what each start found merged and held against the others, and what
/// is found refined beside other groups.
void add_learning(const BlockSize& before, const Refining& refining, const ConvertOptions& options,
                  const CalibrationWindows& text, CalibrationWork& work) {
  const LearnOptions learning;
  const double steps = learning.starts * learning_steps(*options.calibration);
  const auto per_step = [&](const auto& flops) { return sums_over(text, flops).step; };
  work.forward += steps * per_step([&](int64_t n) { return forward_flops(before, n); });
  work.backward += steps * per_step([&](int64_t n) { return backward_flops(before, n); });
  work.forward += learning.starts * refining.converted.all;
  refining.add_to(work, options.unequal ? 2 : 3);
}

void add_layer(const ModelConfig& source, const ModelConfig& result, int64_t layer,
               const ConvertOptions& options, const CalibrationWindows& text,
               CalibrationWork& work) {
  const BlockSize before = block_of(source, layer), after = block_of(result, layer);
  const auto all = [&](const auto& flops) { return sums_over(text, flops).all; };
  const double original = all([&](int64_t n) { return forward_flops(before, n); });
  const double moments = all([&](int64_t n) { return moments_flops(before, source.q_heads, n); });
  const TextSums converted = sums_over(text, [&](int64_t n) { return forward_flops(after, n); });
  const TextSums behind = sums_over(text, [&](int64_t n) { return mlp_flops(source, n); });
  const TextSums gradient =
      sums_over(text, [&](int64_t n) { return step_flops(source, after, n); });

  // Grouping: the original studied and passed, outputs of two candidates compared.
  if (is_grouped_on_text(options)) {
    work.forward += original;
    work.moments += moments;
    work.mlp += behind.all;
    if (options.grouping == "similarity") work.forward += 2 * converted.all;
  }
  const bool changed = after.kv < before.kv || after.q < before.q;
  const int64_t steps = options.calibration->steps;
  const Refining refining{converted, behind, gradient, steps};
  const auto at = static_cast<size_t>(layer);
  if (options.grouping == "learned" && has_choice(source.kv_heads[at], result.kv_heads[at])) {
    add_learning(before, refining, options, text, work);
  }
  // Converting: the original studied on what comes, and passed on what would have come; the
  // converted layer passed. And all that again where what is refined is compared with what is not.
  const double times = steps > 0 ? 2 : 1;
  work.forward += times * (2 * original + converted.all);
  work.moments += times * moments;
  work.mlp += times * 2 * behind.all;
  if (steps > 0 && changed) refining.add_to(work, 1);
}

}  // namespace

/// Scores and weighted sums: 2 * 2 * q for each pair.
double forward_flops(const BlockSize& block, int64_t n) {
  return projection_flops(block, static_cast<double>(n)) +
         4 * static_cast<double>(block.q) * pairs(n);
}

/// Gradients of q, k, v and o as their products; by the attended values 2 * n * q * width; then,
/// for each pair, by values, probabilities, queries and keys, 4 * 2 * q.
double backward_flops(const BlockSize& block, int64_t n) {
  return projection_flops(block, static_cast<double>(n)) +
         2 * static_cast<double>(n) * static_cast<double>(block.q * block.width) +
         8 * static_cast<double>(block.q) * pairs(n);
}

/// The MLP twice: what it makes of the output, and gradients through it.
double step_flops(const ModelConfig& config, const BlockSize& block, int64_t n) {
  return backward_flops(block, n) + 2 * mlp_flops(config, n);
}

/// For each query head inputs averaged, those that it does not see as zeros, 2 * n^2 * inputs, and
/// their products, 2 * n * inputs^2.
double moments_flops(const BlockSize& block, int64_t q_heads, int64_t n) {
  const auto inputs = static_cast<double>(block.inputs);
  return static_cast<double>(q_heads) *
         (2 * static_cast<double>(n * n) * inputs + 2 * static_cast<double>(n) * inputs * inputs);
}

double mlp_flops(const ModelConfig& config, int64_t n) {
  return 6 * static_cast<double>(n) * static_cast<double>(config.width * config.mlp_width);
}

double sampling_flops(const ModelConfig& config, int64_t kv_len) {
  double flops = 2 * static_cast<double>(config.vocab_size * config.width);
  for (int64_t l = 0; l < config.n_layers; ++l) {
    const BlockSize block = block_of(config, l);
    flops += projection_flops(block, 1) + mlp_flops(config, 1) +
             4 * static_cast<double>(block.q) * static_cast<double>(kv_len);
  }
  return flops;
}

/// Of two models that are compared with the original.
double divergence_flops(const ModelConfig& config, const CalibrationWindows& text) {
  const double tokens = sums_over(text, [](int64_t n) { return static_cast<double>(n); }).checked;
  return 4 * std::min(tokens, static_cast<double>(compared_tokens)) *
         (2 * static_cast<double>(config.vocab_size * config.width));
}

CalibrationWork count_work(const ModelConfig& source, const ModelConfig& result,
                           const ConvertOptions& options, const CalibrationWindows& text) {
  const Calibration& calibration = *options.calibration;
  CalibrationWork work;
  work.sampling = static_cast<double>(calibration.sampled()) *
                  sampling_flops(source, std::min(calibration.window, source.max_positions) / 2);
  for (int64_t l = 0; l < source.n_layers; ++l) add_layer(source, result, l, options, text, work);
  if (calibration.steps > 0) work.mlp += divergence_flops(source, text);
  return work;
}

}  // namespace gqa
