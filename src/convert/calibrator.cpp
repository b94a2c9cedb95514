#include "convert/calibrator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "convert/layer_chain.h"
#include "convert/layer_progress.h"
#include "convert/merge_matrices.h"
#include "io/json_value.h"
#include "regroup/lumps.h"
#include "regroup/products.h"
#include "regroup/refit_outputs.h"
#include "regroup/rotary_planes.h"
#include "regroup/sensitivity.h"

namespace gqa {

struct Calibrator::Impl {
  using Interrupt = std::function<void()>;

  CalibrationRun run;
  std::unique_ptr<Stream> studied;  ///< the original, behind layer last_studied
  std::optional<LayerStudy> last_study;
  std::optional<ScratchRows> last_hidden;  ///< likewise: what came in, where groups are learned
  int64_t last_studied = -1;               ///< layer of last_study
  std::unique_ptr<Sensitivity> sensitivity;
  std::vector<LayerGrouping> learned;
  Fitting fitting = Fitting::all;                   ///< of convert()
  std::optional<LayerChain> chain;                  ///< likewise
  std::vector<std::vector<double>> key_directions;  ///< of a chain that is gone
  std::map<int64_t, WrittenLayer> written;

  Impl(const SourceModel& source, const ConvertOptions& options, const Progress& progress)
      : run(source, options, progress) {}

  const LayerStudy& study_of(int64_t layer) {
    if (!studied) studied = std::make_unique<Stream>(run.start());
    while (last_studied < layer) {
      last_study.reset();  // before the next one takes memory
      ++last_studied;
      if (run.options.grouping == "learned") {
        const RowsRef hidden = studied->hidden();
        if (!last_hidden) last_hidden.emplace(run.place, hidden.rows(), hidden.cols());
        last_hidden->map() = hidden;
      }
      last_study = study_layer(run.context.impl(), run.config, run.text, run.load(last_studied),
                               studied->attention_inputs(last_studied));
      studied->pass(last_studied, last_study->output);
    }
    return *last_study;
  }

  /// What grouping needed and converting does not.
  void forget_studies() {
    last_study.reset();
    last_hidden.reset();
    studied.reset();
    sensitivity.reset();
  }

  /// What layers put out without some planes, each beside the hidden states that it adds it to.
  Matrix plane_costs(const Interrupt& interrupt) {
    Matrix costs = Matrix::Zero(run.config.head_dim / 2, run.config.head_dim / 2);
    Stream stream = run.start();
    for (int64_t l = 0; l < run.config.n_layers; ++l) {
      if (interrupt) interrupt();
      const Heads heads = run.load(l);
      const ScratchRows inputs = stream.attention_inputs(l);
      const BlockShape shape(run.config, run.text, heads);
      ScratchRows output(run.place, inputs.rows(), run.config.width);
      Matrix effects = Matrix::Zero(costs.rows(), costs.cols());
      for_lumps(run.context.impl(), shape, inputs, block_weights(heads),
                [&](const BlockShape& part, const BlockAttention& block, int64_t row) {
                  output.map().middleRows(row, part.window_begin.back()) = block.output();
                  effects += plane_effects(part, block, heads);
                });
      stream.pass(l, output);
      costs += effects / std::max(squared_norm(stream.hidden()), 1e-300);
    }
    return costs;
  }

  Sensitivity& sensitivity_to(const Interrupt& interrupt) {
    if (!sensitivity) {
      sensitivity = std::make_unique<Sensitivity>(
          run.context, run.config, run.weights, run.text, compared_tokens,
          [this](int64_t layer) { return run.load(layer); }, interrupt, run.place);
    }
    return *sensitivity;
  }

  bool take_over_next(const HeadGroups& groups, const Progress& progress) {
    const int64_t layer = chain->next();
    const auto found = written.find(layer);
    if (found == written.end() || !found->second.is_whole(run.config.attention_bias)) return false;
    const int64_t layers = run.config.n_layers;
    if (progress) {
      progress(fmt::format("take over: layer {} ({} of {})", layer, layer + 1, layers), layer,
               layers);
    }
    chain->take_over(groups, found->second);
    return true;
  }

  /// Converts up to this layer, if that is still to be done; what comes of it, of the last one, if
  /// it is not taken over.
  Heads convert_to(int64_t layer, const std::vector<HeadGroups>& groups, const Progress& progress) {
    if (!chain) {
      forget_studies();
      chain.emplace(run, fitting);
    }
    Heads result;
    while (chain->next() <= layer) {
      const HeadGroups& next = groups[static_cast<size_t>(chain->next())];
      if (take_over_next(next, progress)) continue;
      const auto step = layer_progress(run, groups, chain->next(), progress);
      step();
      result = chain->convert(next, step);
    }
    return result;
  }

  /// Mean KL(original || model) where nothing is fitted.
  double merged_divergence(const std::vector<HeadGroups>& groups, const Progress& progress) {
    LayerChain merged(run, Fitting::none);
    for (const HeadGroups& layer : groups) {
      const auto tell = [&, at = merged.next()] {
        if (!progress) return;
        progress(fmt::format("compare: layer {} ({} of {})", at, at + 1, groups.size()), at,
                 std::ssize(groups));
      };
      tell();
      merged.convert(layer, tell);
    }
    return merged.divergence();
  }
};

Calibrator::Calibrator(const SourceModel& source, const ConvertOptions& options,
                       const Progress& progress)
    : impl_(std::make_unique<Impl>(source, options, progress)) {}
Calibrator::~Calibrator() = default;

const CalibrationWindows& Calibrator::text() const { return impl_->run.text; }
const std::string& Calibrator::text_sha256() const { return impl_->run.sha256; }

const LayerStudy& Calibrator::study(int64_t layer) { return impl_->study_of(layer); }

HeadGroups Calibrator::best_groups(const LayerStudy& study,
                                   const std::vector<HeadGroups>& candidates) {
  CalibrationRun& s = impl_->run;
  const HeadGroups* best = nullptr;
  double least = 0;
  for (const HeadGroups& groups : candidates) {
    Heads heads = closed_form(study, groups);
    const BlockShape shape(s.config, s.text, heads);
    const BlockGoal goal{.inputs = study.inputs, .target = study.output, .place = s.place};
    const double error = refit_outputs(s.context.impl(), shape, goal, std::move(heads)).after;
    if (best != nullptr && error >= least) continue;
    best = &groups;
    least = error;
  }
  return *best;
}

HeadGroups Calibrator::learn_groups(int64_t layer, const std::vector<FoundGroups>& others,
                                    bool equal, const std::function<void()>& interrupt) {
  const LayerStudy& seen = study(layer);
  impl_->learned.push_back(learned_grouping(impl_->run, {layer, seen, impl_->last_hidden.value()},
                                            others, equal, interrupt));
  const LayerGrouping& last = impl_->learned.back();
  return std::ranges::find(last.tried, last.chosen, &GroupingTrial::grouping)->groups;
}

const std::vector<LayerGrouping>& Calibrator::learned() const { return impl_->learned; }

std::vector<double> Calibrator::divergences(int64_t layer, std::span<const HeadGroups> candidates,
                                            const std::function<void()>& interrupt) {
  const LayerStudy& study = impl_->study_of(layer);
  std::vector<Heads> heads;
  for (const HeadGroups& groups : candidates) {
    if (interrupt) interrupt();
    heads.push_back(with_outputs_fitted(impl_->run, study, layer, groups));
  }
  return impl_->sensitivity_to(interrupt).divergences(layer, heads, interrupt);
}

double Calibrator::divergence(const std::vector<HeadGroups>& layers,
                              const std::function<void()>& interrupt) {
  LayerChain chain(impl_->run, Fitting::outputs);
  for (const HeadGroups& groups : layers) {
    if (interrupt) interrupt();
    chain.convert(groups, interrupt);
  }
  return impl_->sensitivity_to(interrupt).divergence(chain.hidden());
}

std::vector<int64_t> Calibrator::keep_planes(int64_t keep, const std::vector<HeadGroups>& groups,
                                             const std::function<void()>& interrupt) {
  constexpr int64_t most_candidates = 4;
  double least = 0;
  std::vector<int64_t> best;
  for (const auto& planes : choose_planes(impl_->plane_costs(interrupt), keep, most_candidates)) {
    impl_->run.planes = planes;
    const double loss = divergence(groups, interrupt);
    if (!best.empty() && !(loss < least)) continue;
    best = planes;
    least = loss;
  }
  impl_->run.planes = best;
  return best;
}

MergedLayer Calibrator::convert(int64_t layer, const std::vector<HeadGroups>& groups,
                                const Progress& progress) {
  return merged_layer(impl_->convert_to(layer, groups, progress), impl_->run.config);
}

bool Calibrator::keeps_fitting(const std::vector<HeadGroups>& groups, const Progress& progress) {
  Impl& s = *impl_;
  if (s.fitting == Fitting::none || s.run.calibration.steps == 0) return true;
  const int64_t layers = s.run.config.n_layers;
  bool changed = false;
  for (int64_t l = 0; l < layers; ++l) {
    changed = changed || is_changed(s.run, l, groups[static_cast<size_t>(l)]);
  }
  if (!changed) return true;
  s.convert_to(layers - 1, groups, progress);  // or what was written is taken over
  ModelRefinement model{.refined = s.chain->divergence()};
  s.key_directions = s.chain->key_directions();
  s.chain.reset();  // before another one takes as much memory
  model.merged = s.merged_divergence(groups, progress);
  model.kept = std::isfinite(model.refined) && !(model.merged < model.refined);
  if (s.run.calibration.compared) s.run.calibration.compared(model);
  return model.kept;
}

void Calibrator::give_up() {
  impl_->fitting = Fitting::none;
  impl_->chain.reset();
  impl_->key_directions.clear();
  impl_->written.clear();
  impl_->run.refined.clear();
}

bool Calibrator::gave_up() const { return impl_->fitting == Fitting::none; }

void Calibrator::found(int64_t layer, WrittenLayer::Part part, DType dtype, WrittenTensor tensor) {
  impl_->written[layer].add(part, dtype, std::move(tensor));
}

Json Calibrator::refinement_note(int64_t layer) const {
  const auto refined = impl_->run.refined.find(layer);
  return refined == impl_->run.refined.end() ? Json() : to_note(refined->second);
}

std::vector<double> Calibrator::key_directions(int64_t layer, const std::vector<HeadGroups>& groups,
                                               const Progress& progress) {
  const auto at = static_cast<size_t>(layer);
  if (at < impl_->key_directions.size()) return impl_->key_directions[at];
  impl_->convert_to(layer, groups, progress);
  return impl_->chain->key_directions()[at];
}

}  // namespace gqa
