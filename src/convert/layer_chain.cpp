#include "convert/layer_chain.h"

#include <optional>
#include <utility>

#include "convert/layer_progress.h"
#include "convert/merge.h"
#include "convert/merge_matrices.h"
#include "convert/stored_heads.h"
#include "core/fail.h"
#include "regroup/divergence.h"
#include "regroup/key_directions.h"
#include "regroup/lumps.h"
#include "regroup/refine_block.h"
#include "regroup/refit_outputs.h"
#include "regroup/windows.h"

namespace gqa {
namespace {

/// The share of what earlier layers have lost that a layer tries to make good. Of all of it, wide
/// models learn what holds on the text alone, layer upon layer: docs/design/conversion-findings.md
/// has figures.
constexpr float made_good = 0.5f;

Heads merged(const CalibrationRun& run, const LayerStudy& study, int64_t layer,
             const HeadGroups& groups) {
  const std::string& merge = run.options.merge;
  if (merge == "pca") return closed_form(study, groups, run.planes);
  if (merge == "aligned") {
    return merge_heads(study.heads, study.grams, groups, HeadMerge::aligned);
  }
  const MergedLayer plain = find_merge(merge).merge(
      {run.config, layer, groups, run.options.seed, attention_tensors(run.source.checkpoint, layer),
       attention_norm(run.source.checkpoint, layer)});
  return with_merged(regrouped(study.heads, groups), plain);
}

Heads with_outputs_fitted(CalibrationRun& run, Heads heads, const BlockGoal& goal) {
  const BlockShape shape(run.config, run.text, heads);
  return refit_outputs(run.context.impl(), shape, goal, std::move(heads)).heads;
}

Heads refined(CalibrationRun& run, const Heads& heads, const BlockGoal& goal, int64_t layer,
              const std::function<void()>& interrupt) {
  const BlockShape shape(run.config, run.text, heads);
  RefineResult refined = refine_block(
      run.context.impl(), shape, goal, heads,
      {.steps = run.calibration.steps, .seed = run.options.seed, .layer = layer}, interrupt);
  run.tell({layer, refined.before, refined.after, refined.steps, refined.kept, refined.diverged});
  return std::move(refined.heads);
}

/// Whether a layer that was merged so is to be fitted.
bool is_fitted(const CalibrationRun& run, int64_t layer, const HeadGroups& groups) {
  return run.calibration.steps > 0 && is_changed(run, layer, groups);
}

/// The windows held out, from the first one on, until they have enough tokens.
std::vector<RowRange> compared_rows(const CalibrationWindows& text) {
  std::vector<RowRange> rows;
  int64_t have = 0;
  for (const int64_t w : WindowSplit(std::ssize(text.windows)).checked) {
    const auto at = static_cast<size_t>(w);
    rows.push_back({text.begin[at], text.begin[at + 1]});
    have += rows.back().end - rows.back().begin;
    if (have >= compared_tokens) break;
  }
  return rows;
}

}  // namespace

Heads with_outputs_fitted(CalibrationRun& run, const LayerStudy& study, int64_t layer,
                          const HeadGroups& groups) {
  Heads heads = merged(run, study, layer, groups);
  if (!is_fitted(run, layer, groups)) return heads;
  return with_outputs_fitted(run, std::move(heads),
                             {.inputs = study.inputs, .target = study.output, .place = run.place});
}

LayerChain::LayerChain(CalibrationRun& run, Fitting fitting)
    : run_(run), fitting_(fitting), original_(run.start()), converted_(original_) {}

Heads LayerChain::convert(const HeadGroups& groups, const std::function<void()>& interrupt) {
  const int64_t layer = next_++;
  std::optional<LayerStudy> seen =
      study_layer(run_.context.impl(), run_.config, run_.text, run_.load(layer),
                  converted_.attention_inputs(layer));
  ScratchRows target(run_.place, seen->output.rows(), seen->output.cols());
  target.map() = seen->output.map() + made_good * (original_.hidden() - converted_.hidden());
  original_.pass(layer, run_.output_of(seen->heads, original_.attention_inputs(layer)));
  Heads result = merged(run_, *seen, layer, groups);
  const ScratchRows inputs = std::move(seen->inputs);
  seen.reset();  // what merging needs is as large as what fitting does
  if (fitting_ != Fitting::none && is_fitted(run_, layer, groups)) {
    std::optional<MlpBlock> mlp;
    if (fitting_ == Fitting::all) mlp.emplace(run_.mlp_of(layer));
    const BlockGoal goal = run_.goal(inputs, target, converted_.hidden(), mlp ? &*mlp : nullptr);
    result = with_outputs_fitted(run_, std::move(result), goal);
    if (mlp) result = refined(run_, result, goal, layer, interrupt);
  }
  // Rounded as it is written.
  const AttentionTensors tensors = attention_tensors(run_.source.checkpoint, layer);
  pass_converted(layer, as_stored(result, tensors, run_.options.output.dtype), inputs);
  return result;
}

void LayerChain::take_over(const HeadGroups& groups, const WrittenLayer& written) {
  const int64_t layer = next_++;
  const Heads source = run_.load(layer);
  pass_converted(layer, heads_of(written.read(), source, groups, run_.planes),
                 converted_.attention_inputs(layer));
  original_.pass(layer, run_.output_of(source, original_.attention_inputs(layer)));
  if (const auto refined = written.refined(layer)) run_.tell(*refined);
}

double LayerChain::divergence() const {
  return gqa::divergence(run_.context, run_.config, run_.weights, original_.hidden(),
                         converted_.hidden(), compared_rows(run_.text));
}

/// Takes the text through the converted layer, and keeps in which directions its keys lie.
void LayerChain::pass_converted(int64_t layer, const Heads& heads, const RowsRef& inputs) {
  const BlockShape shape(run_.config, run_.text, heads);
  ScratchRows output(run_.place, inputs.rows(), run_.config.width);
  std::vector<Matrix> moments(static_cast<size_t>(heads.kv_heads()),
                              Matrix::Zero(heads.head_dim, heads.head_dim));
  for_lumps(run_.context.impl(), shape, inputs, block_weights(heads),
            [&](const BlockShape& part, const BlockAttention& block, int64_t row) {
              const int64_t n = part.window_begin.back();
              output.map().middleRows(row, n) = block.output();
              const double share = static_cast<double>(n) / static_cast<double>(inputs.rows());
              for (size_t g = 0; g < moments.size(); ++g) {
                moments[g] += share * block.key_moments(static_cast<int64_t>(g));
              }
            });
  std::vector<double>& directions = key_directions_.emplace_back();
  for (int64_t g = 0; g < heads.kv_heads(); ++g) {
    const Matrix rows = principal_directions(moments[static_cast<size_t>(g)]);
    if (!rows.allFinite()) {
      fail(ErrorKind::bad_data, "layer {}: keys of KV head {} are not finite on the text", layer,
           g);
    }
    directions.insert(directions.end(), rows.data(), rows.data() + rows.size());
  }
  converted_.pass(layer, output);
}

}  // namespace gqa
