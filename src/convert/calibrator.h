// Layers converted one after the other, on calibration text.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "convert/learned_groups.h"
#include "convert/merge.h"
#include "convert/source.h"
#include "convert/written_layer.h"
#include "gqa/convert.h"
#include "regroup/layer_study.h"

namespace gqa {

/// Text, and the model that reads it. Layers are asked for in ascending order.
class Calibrator {
 public:
  /// Reads the text and lets the model write its own part of it. Keeps references. Throws Error:
  /// no_input or bad_data for the text and the tokenizer, usage for options out of range.
  Calibrator(const SourceModel& source, const ConvertOptions& options, const Progress& progress);
  ~Calibrator();

  const CalibrationWindows& text() const;
  /// Of the text's file; empty where there is none.
  const std::string& text_sha256() const;

  /// What the original's layer does; kept until the next layer is asked for, or convert().
  const LayerStudy& study(int64_t layer);
  /// Of these ways to group a layer, the one whose closed form, outputs refitted, comes closest to
  /// what the layer puts out.
  HeadGroups best_groups(const LayerStudy& study, const std::vector<HeadGroups>& candidates);

  /// learned_grouping() of the layer; learned() tells of it.
  HeadGroups learn_groups(int64_t layer, const std::vector<FoundGroups>& others, bool equal,
                          const std::function<void()>& interrupt);
  const std::vector<LayerGrouping>& learned() const;

  /// Mean KL(original || model), nats per token on some of the text, of models in which this layer
  /// alone is grouped so, merged as the options say, and its outputs refitted where there are
  /// steps.
  std::vector<double> divergences(int64_t layer, std::span<const HeadGroups> candidates,
                                  const std::function<void()>& interrupt);
  /// The same of the model in which all layers are, one after the other, as convert() does it but
  /// for the steps.
  double divergence(const std::vector<HeadGroups>& layers, const std::function<void()>& interrupt);

  /// The rotary planes of keys without which the most would be lost, the same for all layers: of
  /// some candidates, those with which divergence() is least. From then on all that converts keeps
  /// these alone, and as many dimensions of values.
  std::vector<int64_t> keep_planes(int64_t keep, const std::vector<HeadGroups>& groups,
                                   const std::function<void()>& interrupt);

  /// The layer converted: merged as the options say, then fitted to what the original's layer makes
  /// of the inputs that the layers already converted (rounded as they are written) give it, and of
  /// half of what they have lost. Layers that are left out are converted on the way.
  MergedLayer convert(int64_t layer, const std::vector<HeadGroups>& groups,
                      const Progress& progress);
  /// To be asked once convert() has come to the last layer: whether the model is at least as close
  /// to the original as if nothing were fitted, on windows held out. Tells whom the options name.
  /// If it is not, give_up() is to be called and all layers converted again.
  bool keeps_fitting(const std::vector<HeadGroups>& groups, const Progress& progress);
  /// From now on convert() begins again, and merges alone.
  void give_up();
  bool gave_up() const;
  /// Where an earlier run wrote a part of a layer: once all of it is known, convert() and
  /// key_directions() of what follows take the layer from there.
  void found(int64_t layer, WrittenLayer::Part part, DType dtype, WrittenTensor tensor);
  /// How refining the layer went, as WrittenLayer::refined() takes it; null: it was not refined.
  Json refinement_note(int64_t layer) const;
  /// The principal directions of the converted layer's keys on the text, [kv_heads, head_dim,
  /// head_dim] (see principal_directions()). Layers that are not yet converted are.
  std::vector<double> key_directions(int64_t layer, const std::vector<HeadGroups>& groups,
                                     const Progress& progress);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gqa
