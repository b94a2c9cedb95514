#include "regroup/layer_study.h"

#include <utility>

#include "regroup/keys.h"
#include "regroup/lumps.h"
#include "regroup/products.h"
#include "regroup/rotary_planes.h"
#include "regroup/shared_values.h"

namespace gqa {
namespace {

HeadMoments averaged_of(const LayerStudy& study) {
  return [&study](int64_t q_head) { return study.averaged(q_head); };
}

}  // namespace

LayerStudy study_layer(Context::Impl& context, const ModelConfig& config,
                       const CalibrationWindows& text, Heads heads, ScratchRows inputs) {
  LayerStudy study;
  study.heads = std::move(heads);
  study.inputs = std::move(inputs);
  const BlockShape shape(config, text, study.heads);
  const ScratchPlace& place = study.inputs.place();
  study.output = block_output(context, shape, study.inputs, block_weights(study.heads), place);
  Matrix moments = gram(context, study.inputs, study.inputs);
  moments /= static_cast<double>(study.inputs.rows());
  study.grams = make_grams(study.heads, moments);
  study.moments = AveragedMoments(context, shape, place);
  return study;
}

Heads closed_form(const LayerStudy& study, const HeadGroups& groups,
                  const std::vector<int64_t>& planes) {
  Heads result = regrouped(study.heads, groups);
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto g = static_cast<int64_t>(i);
    if (groups[i].size() == 1) {
      result.k_of(g) = study.heads.k_of(groups[i][0]);
    } else {
      apply(principal_keys(study.grams, groups[i]), study.heads, groups[i], g, result);
    }
  }
  if (!planes.empty()) result = with_planes(result, planes);
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto g = static_cast<int64_t>(i);
    if (groups[i].size() == 1 && planes.empty()) {
      result.v_of(g) = study.heads.v_of(groups[i][0]);
      continue;
    }
    const SharedValue shared =
        shared_value(study.heads, groups[i], averaged_of(study), result.head_dim);
    result.v_of(g) = shared.value;
    for (size_t h = 0; h < shared.outputs.size(); ++h) {
      result.o_of(result.q_begin[i] + static_cast<int64_t>(h)) = shared.outputs[h];
    }
  }
  return result;
}

StudyPrices::StudyPrices(const LayerStudy& study) : study_(study) {
  for (int64_t g = 0; g < study.heads.kv_heads(); ++g) {
    scores_ += key_loss(study.grams, {g}).total;
    outputs_ += shared_value(study.heads, {g}, averaged_of(study), study.heads.head_dim).total;
  }
}

double StudyPrices::operator()(const std::vector<int64_t>& group) const {
  const auto share = [](double lost, double total) { return total > 0 ? lost / total : 0.0; };
  return share(key_loss(study_.grams, group).lost, scores_) +
         share(shared_value(study_.heads, group, averaged_of(study_), study_.heads.head_dim).lost,
               outputs_);
}

}  // namespace gqa
