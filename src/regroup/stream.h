// The hidden states of calibration text on their way through a model, layer by layer.
#pragma once

#include "gqa/progress.h"
#include "model/weights.h"
#include "regroup/calibration.h"
#include "regroup/scratch_matrix.h"

namespace gqa {

class Stream {
 public:
  static constexpr int64_t rows_at_a_time = 1024;  ///< bounds memory

  /// Before the first layer. Keeps references.
  Stream(Context& context, const ModelConfig& config, const Weights& weights,
         const CalibrationWindows& text, ScratchPlace place = {});

  /// [tokens, width]: the residual stream.
  RowsRef hidden() const { return hidden_; }
  /// What a layer's attention reads: [tokens, inputs], with a 1 behind each where the model has
  /// biases (see Heads).
  ScratchRows attention_inputs(int64_t layer) const;
  /// Adds what the layer's attention gives (its output bias included, where there is one), then
  /// runs its MLP.
  void pass(int64_t layer, const RowsRef& attention_output);

 private:
  Context& context_;
  const ModelConfig& config_;
  const Weights& weights_;
  ScratchRows hidden_;
};

}  // namespace gqa
