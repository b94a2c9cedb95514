// Layers converted on text, one after the other.
#pragma once

#include <functional>
#include <vector>

#include "convert/calibration_run.h"
#include "convert/written_layer.h"
#include "regroup/layer_study.h"
#include "regroup/windowed_block.h"

namespace gqa {

/// The layer merged as the options say and, where it changed and they ask for steps, fitted to the
/// goal: outputs in closed form, then by `steps` gradient steps at most.
Heads converted_layer(CalibrationRun& run, const LayerStudy& study, int64_t layer,
                      const HeadGroups& groups, const BlockGoal& goal, int steps,
                      const std::function<void()>& interrupt);

/// A conversion on its way: what the layers so far, rounded as they are written, make of the text,
/// beside what the original's make of it.
class LayerChain {
 public:
  /// Keeps a reference.
  explicit LayerChain(CalibrationRun& run);

  /// The layer that the next call converts.
  int64_t next() const { return next_; }
  /// Converts a layer: fitted to what the original's layer makes of the inputs that the layers so
  /// far give it, and of half of what they have lost.
  Heads convert(const HeadGroups& groups, int steps, const std::function<void()>& interrupt);
  /// Takes a layer as an earlier run wrote it: the text goes through it, nothing is fitted.
  void take_over(const HeadGroups& groups, const WrittenLayer& written);

  /// [tokens, width]: behind the layers so far.
  RowsRef hidden() const { return converted_.hidden(); }
  /// Of a layer so far: see Calibrator::key_directions().
  const std::vector<double>& key_directions(int64_t layer) const {
    return key_directions_[static_cast<size_t>(layer)];
  }

 private:
  void pass_converted(int64_t layer, const Heads& heads, const RowsRef& inputs);

  CalibrationRun& run_;
  Stream original_;
  Stream converted_;
  int64_t next_ = 0;
  std::vector<std::vector<double>> key_directions_;  ///< of the layers so far
};

}  // namespace gqa
