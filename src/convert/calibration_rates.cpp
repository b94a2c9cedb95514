// Rates of the kinds of work that calibration_time.h counts, on this machine.
#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "convert/calibration_time.h"
#include "convert/grouping.h"
#include "gqa/generate.h"
#include "regroup/refine_block.h"
#include "regroup/rotary_planes.h"
#include "regroup/sampled_text.h"
#include "regroup/stream.h"

namespace gqa {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double most_flops = 4e9;   ///< of a sample's forward: large models get fewer tokens
constexpr double long_enough = 0.2;  ///< seconds of a sample
constexpr int fewest_turns = 3;

/// The median time of a call, of as many as fit.
template <typename Work>
double seconds_of(const Work& work) {
  std::vector<double> turns;
  double sum = 0;
  while (std::ssize(turns) < fewest_turns || (sum < long_enough && std::ssize(turns) < 100)) {
    const auto start = Clock::now();
    work();
    turns.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    sum += turns.back();
  }
  std::ranges::nth_element(turns, turns.begin() + std::ssize(turns) / 2);
  return turns[turns.size() / 2];
}

/// The heads of the first layer, as many of them merged as in the result: each group as its first.
Heads some_result(const Heads& heads, int64_t kv_heads, int64_t head_dim) {
  const HeadGroups groups = spread_groups(heads.kv_heads(), kv_heads);
  Heads result = regrouped(heads, groups);
  for (int64_t g = 0; g < kv_heads; ++g) {
    result.k_of(g) = heads.k_of(groups[static_cast<size_t>(g)][0]);
    result.v_of(g) = heads.v_of(groups[static_cast<size_t>(g)][0]);
  }
  if (head_dim == heads.head_dim) return result;
  std::vector<int64_t> planes;
  for (int64_t i = 0; i < head_dim / 2; ++i) planes.push_back(i);
  return with_planes(result, planes);
}

class Sample {
 public:
  Sample(const SourceModel& source, const ModelConfig& result, const ConvertOptions& options,
         const CalibrationWindows& text)
      : source_(source),
        config_(source.config),
        result_(result),
        options_(options),
        context_({.threads = options.output.threads, .isa = options.calibration->isa}),
        weights_(config_, source.dir, WeightDType::stored, {}) {
    block_ = {config_.width + (config_.attention_bias ? 1 : 0), config_.width,
              config_.q_heads * result.head_dim, result.kv_heads[0] * result.head_dim};
    length_ = text.longest();
    const auto flops = [&] { return 2 * forward_flops(block_, length_); };
    while (length_ > 32 && flops() > most_flops) length_ /= 2;
    for (int i = 0; i < 2; ++i) {
      std::vector<int32_t> window;
      for (int64_t t = 0; t < length_; ++t) {
        window.push_back(static_cast<int32_t>((t * 31 + i) % config_.vocab_size));
      }
      text_.add(std::move(window));
    }
  }

  double seconds(const CalibrationWork& work) {
    Stream stream(context_, config_, weights_, text_);
    const ScratchRows rows = stream.attention_inputs(0);
    const Rows inputs = rows.map();
    const Heads original = load_heads(config_, 0, attention_tensors(source_.checkpoint, 0));
    const Heads heads = some_result(original, result_.kv_heads[0], result_.head_dim);
    const BlockShape shape(config_, text_, heads);
    const BlockWeights weights = block_weights(heads);
    BlockAttention block(context_.impl(), shape, inputs);
    Rows output;
    const double forward = seconds_of([&] {
      block.run(weights);
      output = block.output();
    });
    double sum = work.forward * forward / (2 * forward_flops(block_, length_));
    const double moments = seconds_of([&] { block.averaged_moments(0); });
    sum += work.moments * moments / (2 * moments_flops(block_, 1, length_));
    const Rows nothing = Rows::Zero(inputs.rows(), config_.width);
    const double mlp = seconds_of([&] { stream.pass(0, nothing); });
    sum += work.mlp * mlp / (2 * mlp_flops(config_, length_));
    if (work.backward > 0) {
      const Rows target = 2 * output;
      const double step = step_seconds(
          shape, {.inputs = inputs, .target = target, .hidden = stream.hidden()}, heads);
      sum += work.backward * std::max(step - 2 * forward - mlp, 0.0) /
             (2 * step_flops(config_, block_, length_));
    }
    if (work.sampling > 0) sum += work.sampling * sampling_seconds();
    return sum;
  }

 private:
  /// Of a gradient step and a check, both on the windows of the sample: there are too few to hold
  /// one out.
  double step_seconds(const BlockShape& shape, BlockGoal goal, const Heads& heads) {
    MlpBlock mlp(context_.impl(), weights_.layers[0], config_.rms_norm_eps);
    goal.mlp = &mlp;
    std::vector<Clock::time_point> steps;
    refine_block(context_.impl(), shape, goal, heads, {.steps = refine_checks - 1, .rate = 1e-3},
                 [&] { steps.push_back(Clock::now()); });
    std::vector<double> turns;
    for (size_t i = 1; i < steps.size(); ++i) {
      turns.push_back(std::chrono::duration<double>(steps[i] - steps[i - 1]).count());
    }
    std::ranges::nth_element(turns, turns.begin() + std::ssize(turns) / 2);
    return turns[turns.size() / 2];
  }

  /// Per operation.
  double sampling_seconds() {
    const Model model = Model::load(source_.dir);
    constexpr int64_t batch = 16;  // windows side by side, as many as are sampled so
    const double token = sampling_flops(config_, 0);
    const int64_t length =
        std::clamp(static_cast<int64_t>(most_flops / (batch * token)), int64_t{4},
                   std::min(options_.calibration->window, config_.max_positions) / 2);
    double flops = 0;
    for (int64_t t = 0; t < length; ++t) flops += batch * sampling_flops(config_, t);
    CalibrationWindows text;
    const auto start = Clock::now();
    add_sampled_windows(context_, model, batch * length, length, options_.seed, text);
    return std::chrono::duration<double>(Clock::now() - start).count() / flops;
  }

  const SourceModel& source_;
  const ModelConfig& config_;
  const ModelConfig& result_;
  const ConvertOptions& options_;
  Context context_;
  Weights weights_;
  BlockSize block_;
  int64_t length_ = 0;  ///< of a window
  CalibrationWindows text_;
};

}  // namespace

double estimate_seconds(const SourceModel& source, const ModelConfig& result,
                        const ConvertOptions& options, const CalibrationWindows& text) {
  return Sample(source, result, options, text)
      .seconds(count_work(source.config, result, options, text));
}

}  // namespace gqa
