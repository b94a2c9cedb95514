// What a layer does on calibration text, as far as grouping and merging ask.
#pragma once

#include "regroup/averaged_moments.h"
#include "regroup/block_attention.h"
#include "regroup/grams.h"
#include "regroup/partition.h"
#include "regroup/scratch_matrix.h"

namespace gqa {

struct LayerStudy {
  Heads heads;         ///< of the source
  ScratchRows inputs;  ///< [tokens, inputs], see Heads
  ScratchRows output;  ///< [tokens, width]: what these heads make of them
  HeadGrams grams;     ///< under E[x x^T] of the inputs
  /// Of a query head. Takes long where nobody asked before: see AveragedMoments.
  AveragedMoments::Map averaged(int64_t q_head) const { return moments.of(heads, inputs, q_head); }
  mutable AveragedMoments moments;
};

LayerStudy study_layer(Context::Impl& context, const ModelConfig& config,
                       const CalibrationWindows& text, Heads heads, ScratchRows inputs);

/// The closed form: principal_keys() and shared_value() for every group. Groups of one stay as they
/// are. With `planes`: keys have these rotary planes alone, and values of all groups as many
/// dimensions.
Heads closed_form(const LayerStudy& study, const HeadGroups& groups,
                  const std::vector<int64_t>& planes = {});

/// What making one head of a group costs: the share of all scores' energy that principal_keys()
/// loses, plus the share of all outputs' energy that shared_value() loses.
class StudyPrices {
 public:
  explicit StudyPrices(const LayerStudy& study);
  double operator()(const std::vector<int64_t>& group) const;

 private:
  const LayerStudy& study_;
  double scores_ = 0;   ///< energy of all
  double outputs_ = 0;  ///< energy of all
};

}  // namespace gqa
