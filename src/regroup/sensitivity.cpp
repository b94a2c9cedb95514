#include "regroup/sensitivity.h"

#include <algorithm>
#include <utility>

#include "core/checked.h"
#include "regroup/block_attention.h"
#include "regroup/divergence.h"

namespace gqa {
namespace {

/// Every so many-th window, so that `tokens` are about reached and never exceeded (but by the
/// first window).
std::vector<size_t> pick_windows(const CalibrationWindows& text, int64_t tokens) {
  const auto stride = static_cast<size_t>(std::max<int64_t>(1, ceil_div(text.tokens(), tokens)));
  std::vector<size_t> picked;
  int64_t have = 0;
  for (size_t i = 0; i < text.windows.size(); i += stride) {
    have += std::ssize(text.windows[i]);
    if (have > tokens && !picked.empty()) break;
    picked.push_back(i);
  }
  return picked;
}

CalibrationWindows some_windows(const CalibrationWindows& text, int64_t tokens) {
  CalibrationWindows some;
  for (const size_t i : pick_windows(text, tokens)) some.add(text.windows[i]);
  return some;
}

}  // namespace

Sensitivity::Sensitivity(Context& context, const ModelConfig& config, const Weights& weights,
                         const CalibrationWindows& text, int64_t tokens, LoadHeads original,
                         const Interrupt& interrupt, ScratchPlace place)
    : context_(context),
      config_(config),
      weights_(weights),
      original_(std::move(original)),
      windows_(some_windows(text, tokens)),
      place_(std::move(place)),
      before_(start()) {
  for (const size_t i : pick_windows(text, tokens)) begin_.push_back(text.begin[i]);
  Stream stream = before_;
  for (int64_t l = 0; l < config_.n_layers; ++l) {
    if (interrupt) interrupt();
    pass(l, original_(l), stream);
  }
  last_ = stream.hidden();
}

Stream Sensitivity::start() const { return {context_, config_, weights_, windows_, place_}; }

void Sensitivity::pass(int64_t layer, const Heads& heads, Stream& stream) const {
  const Rows inputs = stream.attention_inputs(layer).map();
  const BlockShape shape(config_, windows_, heads);
  BlockAttention block(context_.impl(), shape, inputs);
  block.run(block_weights(heads));
  stream.pass(layer, block.output());
}

double Sensitivity::divergence(const RowsRef& hidden) const {
  Rows rows(windows_.tokens(), hidden.cols());
  for (size_t i = 0; i < begin_.size(); ++i) {
    const int64_t n = std::ssize(windows_.windows[i]);
    rows.middleRows(windows_.begin[i], n) = hidden.middleRows(begin_[i], n);
  }
  return divergence_of_rows(rows);
}

std::vector<double> Sensitivity::divergences(int64_t layer, const std::vector<Heads>& others,
                                             const Interrupt& interrupt) {
  for (; next_ < layer; ++next_) pass(next_, original_(next_), before_);
  std::vector<Stream> streams(others.size(), before_);
  for (size_t i = 0; i < others.size(); ++i) pass(layer, others[i], streams[i]);
  for (int64_t l = layer + 1; l < config_.n_layers; ++l) {
    const Heads heads = original_(l);
    for (Stream& stream : streams) {
      if (interrupt) interrupt();
      pass(l, heads, stream);
    }
  }
  std::vector<double> result;
  for (const Stream& stream : streams) result.push_back(divergence_of_rows(stream.hidden()));
  return result;
}

double Sensitivity::divergence_of_rows(const RowsRef& hidden) const {
  const RowRange all{0, hidden.rows()};
  return gqa::divergence(context_, config_, weights_, last_, hidden, std::span(&all, 1));
}

}  // namespace gqa
