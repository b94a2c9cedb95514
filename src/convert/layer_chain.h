// Layers converted on text, one after the other.
#pragma once

#include <functional>
#include <vector>

#include "convert/calibration_run.h"
#include "convert/written_layer.h"
#include "regroup/layer_study.h"
#include "regroup/windowed_block.h"

namespace gqa {

/// What is fitted of a layer once it is merged, where it changed and the options ask for steps.
enum class Fitting {
  none,
  outputs,  ///< in closed form
  all       ///< outputs, then everything by the options' steps
};

/// The layer merged as the options say, and its outputs fitted to what the original's puts out.
Heads with_outputs_fitted(CalibrationRun& run, const LayerStudy& study, int64_t layer,
                          const HeadGroups& groups);

/// A conversion on its way: what the layers so far, rounded as they are written, make of the text,
/// beside what the original's make of it.
class LayerChain {
 public:
  /// Keeps a reference.
  LayerChain(CalibrationRun& run, Fitting fitting);

  /// The layer that the next call converts.
  int64_t next() const { return next_; }
  /// Converts a layer: fitted to what the original's layer makes of the inputs that the layers so
  /// far give it, and of half of what they have lost.
  Heads convert(const HeadGroups& groups, const std::function<void()>& interrupt);
  /// Takes a layer as an earlier run wrote it: the text goes through it, nothing is fitted.
  void take_over(const HeadGroups& groups, const WrittenLayer& written);

  /// [tokens, width]: behind the layers so far.
  RowsRef hidden() const { return converted_.hidden(); }
  /// Mean KL(original || converted), nats per token, on windows of the text that are held out (see
  /// WindowSplit), of so many of them as have compared_tokens; to be asked for behind the last
  /// layer.
  double divergence() const;
  /// Of the layers so far: see Calibrator::key_directions().
  const std::vector<std::vector<double>>& key_directions() const { return key_directions_; }

 private:
  void pass_converted(int64_t layer, const Heads& heads, const RowsRef& inputs);

  CalibrationRun& run_;
  Fitting fitting_;
  Stream original_;
  Stream converted_;
  int64_t next_ = 0;
  std::vector<std::vector<double>> key_directions_;
};

}  // namespace gqa
