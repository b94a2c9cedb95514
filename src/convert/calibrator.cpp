#include "convert/calibrator.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "convert/calibration_needs.h"
#include "convert/calibration_text.h"
#include "convert/merge_matrices.h"
#include "convert/stored_heads.h"
#include "core/fail.h"
#include "regroup/key_directions.h"
#include "regroup/lumps.h"
#include "regroup/products.h"
#include "regroup/refine_block.h"
#include "regroup/refit_outputs.h"
#include "regroup/rotary_planes.h"
#include "regroup/sensitivity.h"
#include "regroup/stream.h"

namespace gqa {
namespace {

/// Tokens on which models are compared: more would hardly change which is the better one.
constexpr int64_t compared_tokens = 4096;

}  // namespace

struct Calibrator::Impl {
  using Interrupt = std::function<void()>;

  /// A conversion, layer by layer.
  struct Chain {
    Stream original;
    Stream converted;                                      ///< with the layers so far
    int64_t next = 0;                                      ///< layer that both stand before
    std::vector<std::vector<double>> key_directions = {};  ///< of the layers so far

    explicit Chain(const Stream& start) : original(start), converted(start) {}
  };

  const SourceModel& source;
  const ModelConfig& config;
  ConvertOptions options;
  const Calibration& calibration;
  Context context;
  Weights weights;
  CalibrationWindows text;
  std::string sha256;
  std::unique_ptr<Stream> studied;  ///< the original, behind layer last_studied
  std::optional<LayerStudy> last_study;
  int64_t last_studied = -1;  ///< layer of last_study
  std::unique_ptr<Sensitivity> sensitivity;
  std::optional<Chain> chain;   ///< of convert()
  std::vector<int64_t> planes;  ///< that keys keep; empty: all

  Impl(const SourceModel& s, const ConvertOptions& o, const Progress& progress)
      : source(s),
        config(s.config),
        options(o),
        calibration(*options.calibration),
        context({.threads = o.output.threads, .isa = o.calibration->isa}),
        weights(config, s.dir, WeightDType::stored, progress) {
    CalibrationText given = calibration_text(context, source, options, progress);
    text = std::move(given.windows);
    sha256 = std::move(given.sha256);
  }

  Stream start() { return Stream(context, config, weights, text); }

  Heads load(int64_t layer) const {
    return load_heads(config, layer, attention_tensors(source.checkpoint, layer));
  }

  Heads merged(const LayerStudy& study, int64_t layer, const HeadGroups& groups) const {
    if (options.merge == "pca") return closed_form(study, groups, planes);
    if (options.merge == "aligned") {
      return merge_heads(study.heads, study.grams, groups, HeadMerge::aligned);
    }
    const MergedLayer plain = find_merge(options.merge)
                                  .merge({config, layer, groups, options.seed,
                                          attention_tensors(source.checkpoint, layer),
                                          attention_norm(source.checkpoint, layer)});
    return with_merged(regrouped(study.heads, groups), plain);
  }

  Rows output_of(const Heads& heads, const Rows& inputs) {
    return block_output(context.impl(), BlockShape(config, text, heads), inputs,
                        block_weights(heads));
  }

  const LayerStudy& study_of(int64_t layer) {
    if (!studied) studied = std::make_unique<Stream>(start());
    while (last_studied < layer) {
      last_study.reset();  // before the next one takes memory
      ++last_studied;
      last_study = study_layer(context.impl(), config, text, load(last_studied),
                               studied->attention_inputs(last_studied));
      studied->pass(last_studied, last_study->output);
    }
    return *last_study;
  }

  /// What grouping needed and converting does not.
  void forget_studies() {
    last_study.reset();
    studied.reset();
    sensitivity.reset();
  }

  /// What layers put out without some planes, each beside the hidden states that it adds it to.
  Matrix plane_costs(const Interrupt& interrupt) {
    Matrix costs = Matrix::Zero(config.head_dim / 2, config.head_dim / 2);
    Stream stream = start();
    for (int64_t l = 0; l < config.n_layers; ++l) {
      if (interrupt) interrupt();
      const Heads heads = load(l);
      const Rows inputs = stream.attention_inputs(l);
      const BlockShape shape(config, text, heads);
      Rows output(inputs.rows(), config.width);
      Matrix effects = Matrix::Zero(costs.rows(), costs.cols());
      for_lumps(context.impl(), shape, inputs, block_weights(heads),
                [&](const BlockShape& part, const BlockAttention& block, int64_t row) {
                  output.middleRows(row, part.window_begin.back()) = block.output();
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
          context, config, weights, text, compared_tokens,
          [this](int64_t layer) { return load(layer); }, interrupt);
    }
    return *sensitivity;
  }

  /// The layer merged and fitted, `steps` at most.
  Heads converted(const LayerStudy& layer_study, int64_t layer, const HeadGroups& groups,
                  const Rows& target, int steps, const Interrupt& interrupt) {
    Heads heads = merged(layer_study, layer, groups);
    const bool changed = std::ssize(groups) < layer_study.heads.kv_heads() || !planes.empty();
    if (calibration.steps == 0 || !changed) return heads;
    const BlockShape shape(config, text, heads);
    heads = refit_outputs(context.impl(), shape, layer_study.inputs, target, heads).heads;
    if (steps == 0) return heads;
    const RefineResult refined =
        refine_block(context.impl(), shape, layer_study.inputs, target, heads,
                     {.steps = steps, .seed = options.seed, .layer = layer}, interrupt);
    if (calibration.refined) {
      calibration.refined(
          {layer, refined.before, refined.after, refined.steps, refined.kept, refined.diverged});
    }
    return refined.heads;
  }

  /// Takes the text through the converted layer, and keeps in which directions its keys lie.
  void pass_converted(Chain& at, int64_t layer, const Heads& heads, const Rows& inputs) {
    const BlockShape shape(config, text, heads);
    Rows output(inputs.rows(), config.width);
    std::vector<Matrix> moments(static_cast<size_t>(heads.kv_heads()),
                                Matrix::Zero(heads.head_dim, heads.head_dim));
    for_lumps(context.impl(), shape, inputs, block_weights(heads),
              [&](const BlockShape& part, const BlockAttention& block, int64_t row) {
                const int64_t n = part.window_begin.back();
                output.middleRows(row, n) = block.output();
                const double share = static_cast<double>(n) / static_cast<double>(inputs.rows());
                for (size_t g = 0; g < moments.size(); ++g) {
                  moments[g] += share * block.key_moments(static_cast<int64_t>(g));
                }
              });
    std::vector<double>& directions = at.key_directions.emplace_back();
    for (int64_t g = 0; g < heads.kv_heads(); ++g) {
      const Matrix rows = principal_directions(moments[static_cast<size_t>(g)]);
      if (!rows.allFinite()) {
        fail(ErrorKind::bad_data, "layer {}: keys of KV head {} are not finite on the text", layer,
             g);
      }
      directions.insert(directions.end(), rows.data(), rows.data() + rows.size());
    }
    at.converted.pass(layer, output);
  }

  /// Converts up to this layer, if that is still to be done; what comes of it, of the last one.
  Heads convert_to(int64_t layer, const std::vector<HeadGroups>& groups,
                   const Interrupt& interrupt) {
    if (!chain) {
      forget_studies();
      chain.emplace(start());
    }
    Heads result;
    while (chain->next <= layer) {
      result = convert_next(*chain, groups[static_cast<size_t>(chain->next)], calibration.steps,
                            interrupt);
    }
    return result;
  }

  Heads convert_next(Chain& at, const HeadGroups& groups, int steps, const Interrupt& interrupt) {
    const int64_t layer = at.next++;
    const LayerStudy seen = study_layer(context.impl(), config, text, load(layer),
                                        at.converted.attention_inputs(layer));
    const Rows target = seen.output + (at.original.hidden() - at.converted.hidden());
    Heads result = converted(seen, layer, groups, target, steps, interrupt);
    // Rounded as it is written.
    const AttentionTensors tensors = attention_tensors(source.checkpoint, layer);
    pass_converted(at, layer, as_stored(result, tensors, options.output.dtype), seen.inputs);
    at.original.pass(layer, output_of(seen.heads, at.original.attention_inputs(layer)));
    return result;
  }
};

Calibrator::Calibrator(const SourceModel& source, const ConvertOptions& options,
                       const Progress& progress)
    : impl_(std::make_unique<Impl>(source, options, progress)) {}
Calibrator::~Calibrator() = default;

int64_t Calibrator::tokens() const { return impl_->text.tokens(); }
int64_t Calibrator::memory_bytes() const { return calibration_memory(impl_->config, impl_->text); }
std::string Calibrator::warning(int64_t kv_heads) const {
  return impl_->calibration.steps > 0 ? few_tokens(impl_->config, tokens(), kv_heads) : "";
}
const std::string& Calibrator::text_sha256() const { return impl_->sha256; }

const LayerStudy& Calibrator::study(int64_t layer) { return impl_->study_of(layer); }

HeadGroups Calibrator::best_groups(const LayerStudy& study,
                                   const std::vector<HeadGroups>& candidates) {
  Impl& s = *impl_;
  const HeadGroups* best = nullptr;
  double least = 0;
  for (const HeadGroups& groups : candidates) {
    const Heads heads = closed_form(study, groups);
    const BlockShape shape(s.config, s.text, heads);
    const double error =
        refit_outputs(s.context.impl(), shape, study.inputs, study.output, heads).after;
    if (best != nullptr && error >= least) continue;
    best = &groups;
    least = error;
  }
  return *best;
}

std::vector<double> Calibrator::divergences(int64_t layer, std::span<const HeadGroups> candidates,
                                            const std::function<void()>& interrupt) {
  const LayerStudy& study = impl_->study_of(layer);
  std::vector<Heads> heads;
  for (const HeadGroups& groups : candidates) {
    if (interrupt) interrupt();
    heads.push_back(impl_->converted(study, layer, groups, study.output, 0, interrupt));
  }
  return impl_->sensitivity_to(interrupt).divergences(layer, heads, interrupt);
}

double Calibrator::divergence(const std::vector<HeadGroups>& layers,
                              const std::function<void()>& interrupt) {
  Impl& s = *impl_;
  Impl::Chain chain(s.start());
  for (const HeadGroups& groups : layers) {
    if (interrupt) interrupt();
    s.convert_next(chain, groups, 0, interrupt);
  }
  return s.sensitivity_to(interrupt).divergence(chain.converted.hidden());
}

std::vector<int64_t> Calibrator::keep_planes(int64_t keep, const std::vector<HeadGroups>& groups,
                                             const std::function<void()>& interrupt) {
  constexpr int64_t most_candidates = 4;
  double least = 0;
  std::vector<int64_t> best;
  for (const auto& planes : choose_planes(impl_->plane_costs(interrupt), keep, most_candidates)) {
    impl_->planes = planes;
    const double loss = divergence(groups, interrupt);
    if (!best.empty() && !(loss < least)) continue;
    best = planes;
    least = loss;
  }
  impl_->planes = best;
  return best;
}

MergedLayer Calibrator::convert(int64_t layer, const std::vector<HeadGroups>& groups,
                                const std::function<void()>& interrupt) {
  return merged_layer(impl_->convert_to(layer, groups, interrupt), impl_->config);
}

std::vector<double> Calibrator::key_directions(int64_t layer, const std::vector<HeadGroups>& groups,
                                               const std::function<void()>& interrupt) {
  impl_->convert_to(layer, groups, interrupt);
  return impl_->chain->key_directions[static_cast<size_t>(layer)];
}

}  // namespace gqa
