#include "regroup/refine_block.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>
#include <span>

#include "core/random.h"
#include "regroup/balance.h"
#include "regroup/products.h"

namespace gqa {
namespace {

constexpr int64_t held_out_every = 8;
constexpr int64_t fewest_windows = 4;  ///< of which one is held out
constexpr int warm_up = 10;            ///< steps until the rate is at its highest
constexpr int checks = 12;             ///< of the error, on the way
constexpr int patience = 6;            ///< checks without a new least error

constexpr std::array parts{&BlockWeights::q, &BlockWeights::k, &BlockWeights::v, &BlockWeights::o};

class Adam {
 public:
  explicit Adam(const BlockWeights& start)
      : first_(BlockWeights::zeros_like(start)), second_(BlockWeights::zeros_like(start)) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const Rows& w = start.*parts[i];
      sizes_[i] = static_cast<float>(std::sqrt(squared_norm(w) / static_cast<double>(w.size())));
    }
  }

  /// rate: relative to the root mean square of where a matrix began.
  void step(const BlockWeights& gradient, double rate, BlockWeights& weights) {
    constexpr float decay_first = 0.9f, decay_second = 0.999f, epsilon = 1e-12f;
    ++steps_;
    const auto correction =
        static_cast<float>(std::sqrt(1 - std::pow(0.999, steps_)) / (1 - std::pow(0.9, steps_)));
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto g = (gradient.*parts[i]).array();
      auto m = (first_.*parts[i]).array();
      auto v = (second_.*parts[i]).array();
      m = decay_first * m + (1 - decay_first) * g;
      v = decay_second * v + (1 - decay_second) * g.square();
      (weights.*parts[i]).array() -=
          static_cast<float>(rate) * sizes_[i] * correction * m / (v.sqrt() + epsilon);
    }
  }

 private:
  BlockWeights first_, second_;  ///< running means of gradients and of their squares
  std::array<float, 4> sizes_{};
  int steps_ = 0;
};

/// The block on a few windows at a time.
class WindowedBlock {
 public:
  WindowedBlock(Context::Impl& context, const BlockShape& shape, const Rows& inputs,
                const Rows& target, int64_t windows)
      : shape_(shape), inputs_(inputs), target_(target), some_(shape) {
    some_.window_begin.assign(static_cast<size_t>(windows) + 1, 0);
    block_.emplace(context, some_, some_inputs_);
  }

  /// The error on those windows, squared and summed; what gradient() refers to. As many windows as
  /// the constructor was told, or fewer.
  double run(const BlockWeights& weights, std::span<const int64_t> windows) {
    take(windows);
    block_->run(weights);
    residual_ = block_->output() - some_target_;
    return squared_norm(residual_);
  }
  BlockWeights gradient() const { return block_->pullback(residual_); }

 private:
  void take(std::span<const int64_t> windows) {
    auto& begin = some_.window_begin;
    for (size_t i = 0; i + 1 < begin.size(); ++i) {
      const auto w = static_cast<size_t>(i < windows.size() ? windows[i] : -1);
      begin[i + 1] =
          begin[i] + (i < windows.size() ? shape_.window_begin[w + 1] - shape_.window_begin[w] : 0);
    }
    some_inputs_.resize(begin.back(), inputs_.cols());
    some_target_.resize(begin.back(), target_.cols());
    for (size_t i = 0; i < windows.size(); ++i) {
      const int64_t from = shape_.window_begin[static_cast<size_t>(windows[i])];
      const int64_t n = begin[i + 1] - begin[i];
      some_inputs_.middleRows(begin[i], n) = inputs_.middleRows(from, n);
      some_target_.middleRows(begin[i], n) = target_.middleRows(from, n);
    }
  }

  const BlockShape& shape_;
  const Rows& inputs_;
  const Rows& target_;
  BlockShape some_;
  Rows some_inputs_, some_target_, residual_;
  std::optional<BlockAttention> block_;
};

/// Windows in an order that is drawn anew whenever all have had their turn.
class Turns {
 public:
  Turns(std::vector<int64_t> windows, Random random)
      : windows_(std::move(windows)), next_(windows_.size()), random_(random) {}

  void draw(std::span<int64_t> some) {
    for (int64_t& window : some) {
      if (next_ == windows_.size()) {
        for (size_t i = windows_.size(); i > 1; --i) {
          std::swap(windows_[i - 1], windows_[random_.below(i)]);
        }
        next_ = 0;
      }
      window = windows_[next_++];
    }
  }

 private:
  std::vector<int64_t> windows_;
  size_t next_;
  Random random_;
};

}  // namespace

bool is_held_out(int64_t window, int64_t windows) {
  const int64_t every = std::min(held_out_every, windows);
  return windows >= fewest_windows && window % every == every - 1;
}

RefineResult refine_block(Context::Impl& context, const BlockShape& shape, const Rows& inputs,
                          const Rows& target, const Heads& heads, const RefineOptions& options,
                          const std::function<void()>& step) {
  std::vector<int64_t> used, checked;
  for (int64_t w = 0; w < shape.windows(); ++w) {
    (is_held_out(w, shape.windows()) ? checked : used).push_back(w);
  }
  if (checked.empty()) checked = used;
  const int64_t windows = std::min(options.windows, std::ssize(used));
  WindowedBlock block(context, shape, inputs, target, windows);
  double whole = 0;
  for (const int64_t w : checked) {
    const int64_t from = shape.window_begin[static_cast<size_t>(w)];
    const int64_t n = shape.window_begin[static_cast<size_t>(w) + 1] - from;
    whole += squared_norm(target.middleRows(from, n));
  }
  const auto error = [&](const BlockWeights& weights) {
    double sum = 0;
    for (size_t i = 0; i < checked.size(); i += static_cast<size_t>(windows)) {
      const size_t n = std::min(static_cast<size_t>(windows), checked.size() - i);
      sum += block.run(weights, std::span(checked).subspan(i, n));
    }
    return sum / std::max(whole, 1e-300);
  };

  Heads result_heads = balanced(heads);
  BlockWeights weights = block_weights(result_heads);
  RefineResult result;
  result.before = result.after = error(weights);
  BlockWeights best = weights;
  Adam adam(weights);
  Turns turns(used, Random(options.seed, RandomUse::refine, options.layer));
  std::vector<int64_t> some(static_cast<size_t>(windows));
  const int between = std::max(options.steps / checks, 1);
  for (int missed = 0; result.steps < options.steps && missed < patience;) {
    if (step) step();
    turns.draw(some);
    block.run(weights, some);
    const double turn = static_cast<double>(result.steps) / options.steps;
    const double rate = options.rate * 0.5 * (1 + std::cos(std::numbers::pi * turn)) *
                        std::min(1.0, (result.steps + 1.0) / warm_up);
    adam.step(block.gradient(), rate, weights);
    ++result.steps;
    if (result.steps % between != 0 && result.steps < options.steps) continue;
    const double now = error(weights);
    result.diverged = !std::isfinite(now);
    if (result.diverged) break;
    ++missed;
    if (now >= result.after) continue;
    missed = 0;
    result.after = now;
    result.kept = result.steps;
    best = weights;
  }
  result.heads = result.kept > 0 ? with_weights(std::move(result_heads), best) : heads;
  return result;
}

}  // namespace gqa
