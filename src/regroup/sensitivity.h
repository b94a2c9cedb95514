// How much a model's predictions change with its layers.
#pragma once

#include <functional>
#include <vector>

#include "regroup/heads.h"
#include "regroup/stream.h"

namespace gqa {

/// Compares models that differ in their attention with the original, on some of the calibration
/// text's windows. Holds hidden states of those windows, [tokens, width] f32, three times and once
/// more for every model that is compared at a time (see ScratchRows), and one layer's attention
/// (see BlockAttention); never logits of more than a few rows.
class Sensitivity {
 public:
  using LoadHeads = std::function<Heads(int64_t layer)>;  ///< of the original
  using Interrupt = std::function<void()>;                ///< called at every layer; may throw

  /// Of the text, windows from all over it with at most `tokens` tokens (one window at least). Runs
  /// the original on them. Keeps references, but not to `text`.
  Sensitivity(Context& context, const ModelConfig& config, const Weights& weights,
              const CalibrationWindows& text, int64_t tokens, LoadHeads original,
              const Interrupt& interrupt, ScratchPlace place = {});

  /// Mean KL(original || other), nats per token, of a model with these hidden states behind its
  /// last layer: [tokens of the whole text, width].
  double divergence(const RowsRef& hidden) const;

  /// The same for models in which this layer alone has other heads. Layers are asked for in
  /// ascending order, each at most once.
  std::vector<double> divergences(int64_t layer, const std::vector<Heads>& others,
                                  const Interrupt& interrupt);

 private:
  Stream start() const;
  void pass(int64_t layer, const Heads& heads, Stream& stream) const;
  double divergence_of_rows(const RowsRef& hidden) const;

  Context& context_;
  const ModelConfig& config_;
  const Weights& weights_;
  LoadHeads original_;
  CalibrationWindows windows_;
  ScratchPlace place_;
  std::vector<int64_t> begin_;  ///< first row of each window in the whole text
  Stream before_;               ///< the original, before layer next_
  int64_t next_ = 0;
  Rows last_;  ///< the original's hidden states behind its last layer
};

}  // namespace gqa
