// What converting on text works with: the source's weights, the text, and options.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "convert/source.h"
#include "gqa/context.h"
#include "gqa/convert.h"
#include "regroup/heads.h"
#include "regroup/stream.h"
#include "regroup/windowed_block.h"

namespace gqa {

/// On which models are compared: more would hardly change which is the better one.
inline constexpr int64_t compared_tokens = 4096;

struct CalibrationRun {
  /// Reads the text and lets the model write its own part of it. Keeps a reference. Throws Error:
  /// no_input or bad_data for the text and the tokenizer, usage for options out of range.
  CalibrationRun(const SourceModel& source, const ConvertOptions& options,
                 const Progress& progress);

  /// The text before the first layer.
  Stream start() { return Stream(context, config, weights, text, place); }
  /// A layer as the source has it.
  Heads load(int64_t layer) const;
  /// [tokens, width]: what a layer with these heads makes of inputs of all the text.
  ScratchRows output_of(const Heads& heads, const RowsRef& inputs);
  /// A layer's MLP.
  MlpBlock mlp_of(int64_t layer);
  /// To put out `target` of these inputs, errors weighed by the size of what that makes of
  /// `hidden`, and with an MLP to have it make of that what it should. Keeps references.
  BlockGoal goal(const RowsRef& inputs, const RowsRef& target, const RowsRef& hidden,
                 MlpBlock* mlp) const;
  /// Keeps how refining a layer went, and tells whom the options name.
  void tell(const LayerRefinement& layer);

  const SourceModel& source;
  const ModelConfig& config;
  ConvertOptions options;
  const Calibration& calibration;  ///< of the options
  Context context;
  Weights weights;
  CalibrationWindows text;
  std::string sha256;                          ///< of the text's file; empty where there is none
  ScratchPlace place;                          ///< of what is as long as the text
  std::vector<int64_t> planes;                 ///< rotary planes that keys keep; empty: all
  std::map<int64_t, LayerRefinement> refined;  ///< by layer
};

}  // namespace gqa
