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

WindowedBlock::WindowedBlock(Context::Impl& context, const BlockShape& shape, const Rows& inputs,
                             const Rows& target, int64_t windows)
    : shape_(shape), inputs_(inputs), target_(target), some_(shape) {
  some_.window_begin.assign(static_cast<size_t>(windows) + 1, 0);
  block_.emplace(context, some_, some_inputs_);
}

double WindowedBlock::run(const BlockWeights& weights, std::span<const int64_t> windows) {
  take(windows);
  block_->run(weights);
  residual_ = block_->output() - some_target_;
  return squared_norm(residual_);
}

double WindowedBlock::wanted(std::span<const int64_t> windows) const {
  double sum = 0;
  for (const int64_t w : windows) {
    const int64_t from = shape_.window_begin[static_cast<size_t>(w)];
    const int64_t n = shape_.window_begin[static_cast<size_t>(w) + 1] - from;
    sum += squared_norm(target_.middleRows(from, n));
  }
  return sum;
}

double WindowedBlock::error(const BlockWeights& weights, std::span<const int64_t> windows) {
  const auto at_once = static_cast<size_t>(some_.windows());
  double sum = 0;
  for (size_t i = 0; i < windows.size(); i += at_once) {
    sum += run(weights, windows.subspan(i, std::min(at_once, windows.size() - i)));
  }
  return sum / std::max(wanted(windows), 1e-300);
}

void WindowedBlock::take(std::span<const int64_t> windows) {
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

}  // namespace gqa
