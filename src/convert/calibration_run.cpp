#include "convert/calibration_run.h"

#include <utility>

#include "convert/calibration_text.h"
#include "regroup/lumps.h"

namespace gqa {

CalibrationRun::CalibrationRun(const SourceModel& s, const ConvertOptions& o,
                               const Progress& progress)
    : source(s),
      config(s.config),
      options(o),
      calibration(*options.calibration),
      context({.threads = o.output.threads, .isa = o.calibration->isa}),
      weights(config, s.dir, WeightDType::stored, progress),
      place{.folder = calibration.scratch} {
  CalibrationText given = calibration_text(context, source, options, progress);
  text = std::move(given.windows);
  sha256 = std::move(given.sha256);
}

Heads CalibrationRun::load(int64_t layer) const {
  return load_heads(config, layer, attention_tensors(source.checkpoint, layer));
}

ScratchRows CalibrationRun::output_of(const Heads& heads, const RowsRef& inputs) {
  return block_output(context.impl(), BlockShape(config, text, heads), inputs, block_weights(heads),
                      place);
}

MlpBlock CalibrationRun::mlp_of(int64_t layer) {
  return MlpBlock(context.impl(), weights.layers[static_cast<size_t>(layer)], config.rms_norm_eps);
}

BlockGoal CalibrationRun::goal(const RowsRef& inputs, const RowsRef& target, const RowsRef& hidden,
                               MlpBlock* mlp) const {
  return {inputs, target, weights_by_size(row_squares(hidden + target)), mlp, hidden, place};
}

void CalibrationRun::tell(const LayerRefinement& layer) {
  refined.insert_or_assign(layer.layer, layer);
  if (calibration.refined) calibration.refined(layer);
}

}  // namespace gqa
