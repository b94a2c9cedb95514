#include "regroup/windowed_block.h"

#include <algorithm>

#include "regroup/products.h"

namespace gqa {

Parts parts_of(BlockWeights& weights) {
  Parts parts;
  for (Rows* w : {&weights.q, &weights.k, &weights.v, &weights.o}) {
    parts.emplace_back(w->data(), static_cast<size_t>(w->size()));
  }
  return parts;
}

ConstParts parts_of(const BlockWeights& weights) {
  ConstParts parts;
  for (const Rows* w : {&weights.q, &weights.k, &weights.v, &weights.o}) {
    parts.emplace_back(w->data(), static_cast<size_t>(w->size()));
  }
  return parts;
}

WindowedBlock::WindowedBlock(Context::Impl& context, const BlockShape& shape, const BlockGoal& goal,
                             int64_t windows)
    : shape_(shape), goal_(goal), some_(shape) {
  some_.window_begin.assign(static_cast<size_t>(windows) + 1, 0);
  block_.emplace(context, some_, some_inputs_);
  if (goal_.mlp != nullptr) look_behind_mlp();
}

/// What counts there is what the layer adds to the hidden states.
void WindowedBlock::look_behind_mlp() {
  constexpr int64_t lump = 1024;  // bounds the MLP's memory
  const RowsRef& hidden = *goal_.hidden;
  behind_ = ScratchRows(goal_.place, hidden.rows(), hidden.cols());
  for (int64_t r = 0; r < hidden.rows(); r += lump) {
    const int64_t n = std::min(lump, hidden.rows() - r);
    behind_.map().middleRows(r, n) =
        goal_.mlp->run(hidden.middleRows(r, n) + goal_.target.middleRows(r, n));
  }
  behind_weights_ = weights_by_size(row_squares(behind_.map()));
  double added = 0;
  for (int64_t r = 0; r < hidden.rows(); r += lump) {
    const int64_t n = std::min(lump, hidden.rows() - r);
    added += squared_norm(behind_.map().middleRows(r, n) - hidden.middleRows(r, n),
                          slice(behind_weights_, r, n));
  }
  weight_ = squared_norm(goal_.target, goal_.weights) / std::max(added, 1e-300);
}

double WindowedBlock::run(const BlockWeights& weights, std::span<const int64_t> windows) {
  take(windows);
  block_->run(weights);
  const Rows output = block_->output();
  residual_ = output - some_target_;
  double error = squared_norm(residual_, some_weights_);
  weigh(residual_, some_weights_);
  if (goal_.mlp == nullptr) return error;
  residual_behind_ = goal_.mlp->run(some_hidden_ + output) - some_behind_;
  error += weight_ * squared_norm(residual_behind_, some_behind_weights_);
  weigh(residual_behind_, some_behind_weights_);
  return error;
}

BlockWeights WindowedBlock::gradient() const {
  if (goal_.mlp == nullptr) return block_->pullback(residual_);
  return block_->pullback(residual_ +
                          static_cast<float>(weight_) * goal_.mlp->pullback(residual_behind_));
}

double WindowedBlock::wanted() const {
  const double output = squared_norm(some_target_, some_weights_);
  if (goal_.mlp == nullptr) return output;
  return output + weight_ * squared_norm(some_behind_ - some_hidden_, some_behind_weights_);
}

double WindowedBlock::error(const BlockWeights& weights, std::span<const int64_t> windows) {
  const auto at_once = static_cast<size_t>(some_.windows());
  double sum = 0;
  double whole = 0;
  for (size_t i = 0; i < windows.size(); i += at_once) {
    sum += run(weights, windows.subspan(i, std::min(at_once, windows.size() - i)));
    whole += wanted();
  }
  return sum / std::max(whole, 1e-300);
}

void WindowedBlock::take(std::span<const int64_t> windows) {
  auto& begin = some_.window_begin;
  for (size_t i = 0; i + 1 < begin.size(); ++i) {
    const auto w = static_cast<size_t>(i < windows.size() ? windows[i] : -1);
    begin[i + 1] =
        begin[i] + (i < windows.size() ? shape_.window_begin[w + 1] - shape_.window_begin[w] : 0);
  }
  const auto for_windows = [&](const auto& copy) {
    for (size_t i = 0; i < windows.size(); ++i) {
      copy(shape_.window_begin[static_cast<size_t>(windows[i])], begin[i], begin[i + 1] - begin[i]);
    }
  };
  const auto gather = [&](const RowsRef& all, Rows& some) {
    some.resize(begin.back(), all.cols());
    for_windows([&](int64_t from, int64_t to, int64_t n) {
      some.middleRows(to, n) = all.middleRows(from, n);
    });
  };
  const auto gather_weights = [&](const TokenWeights& all, TokenWeights& some) {
    some.clear();
    if (all.empty()) return;
    for_windows([&](int64_t from, int64_t, int64_t n) {
      some.insert(some.end(), all.begin() + from, all.begin() + from + n);
    });
  };
  gather(goal_.inputs, some_inputs_);
  gather(goal_.target, some_target_);
  gather_weights(goal_.weights, some_weights_);
  if (goal_.mlp == nullptr) return;
  gather(*goal_.hidden, some_hidden_);
  gather(behind_, some_behind_);
  gather_weights(behind_weights_, some_behind_weights_);
}

}  // namespace gqa
