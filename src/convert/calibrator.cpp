#include "convert/calibrator.h"

#include <algorithm>
#include <utility>

#include "convert/elements.h"
#include "convert/merge_matrices.h"
#include "core/fail.h"
#include "core/text.h"
#include "gqa/generate.h"
#include "io/sha256.h"
#include "regroup/fit_block.h"
#include "regroup/sampled_text.h"
#include "regroup/stream.h"

namespace gqa {
namespace {

/// How much of what the layers before have lost a layer is to make good: all of it would be fitted
/// at the cost of what the layer itself does.
constexpr float made_good = 0.5f;

Tokenizer load_tokenizer(const SourceModel& source) {
  Tokenizer tokenizer = Tokenizer::load(source.dir / "tokenizer.json");
  check_vocabulary(source.config, tokenizer, source.dir);
  return tokenizer;
}

void check(const Calibration& calibration) {
  require(calibration.tokens >= 1, "calibration tokens: expected at least 1, got {}",
          calibration.tokens);
  require(calibration.sampled_tokens.value_or(0) >= 0,
          "sampled tokens: expected at least 0, got {}", calibration.sampled_tokens.value_or(0));
  require(calibration.window >= 2, "calibration window: expected at least 2, got {}",
          calibration.window);
  require(calibration.steps >= 0, "refinement steps: expected at least 0, got {}",
          calibration.steps);
  require(!calibration.text.empty() || calibration.sampled_tokens.value_or(1) > 0,
          "calibration without a text needs sampled tokens");
}

/// As they will be stored.
void round_to(DType dtype, Matrix& values) {
  const int64_t n = values.size();
  std::vector<float> decoded(static_cast<size_t>(n));
  std::vector<std::byte> stored(static_cast<size_t>(n * dtype_bytes(dtype)));
  encode_elements(values.data(), n, dtype, stored.data());
  decode_elements(stored.data(), dtype, n, decoded.data());
  for (int64_t i = 0; i < n; ++i) values.data()[i] = static_cast<double>(decoded[size_t(i)]);
}

}  // namespace

struct Calibrator::Impl {
  const SourceModel& source;
  const ModelConfig& config;
  ConvertOptions options;
  const Calibration& calibration;
  Context context;
  Weights weights;
  CalibrationWindows text;
  std::string sha256;
  std::unique_ptr<Stream> studied;    ///< the original, for study()
  std::unique_ptr<Stream> original;   ///< the original, beside `converted`
  std::unique_ptr<Stream> converted;  ///< with the layers so far
  int64_t next = 0;                   ///< layer that `converted` stands before

  Impl(const SourceModel& s, const ConvertOptions& o, const Progress& progress)
      : source(s),
        config(s.config),
        options(o),
        calibration(*options.calibration),
        context({.threads = o.output.threads, .isa = o.calibration->isa}),
        weights(config, s.dir, WeightDType::stored, progress) {
    check(calibration);
    if (!calibration.text.empty()) read_text_part();
    write_own_part(progress);
  }

  void read_text_part() {
    sha256 = sha256_of_file(calibration.text);
    if (!calibration.sha256.empty() && calibration.sha256 != sha256) {
      fail(ErrorKind::bad_data, "{}: SHA-256 is {}, expected {}", calibration.text.string(), sha256,
           calibration.sha256);
    }
    text = cut_windows(config, load_tokenizer(source), read_text(calibration.text),
                       calibration.text.string(), calibration.tokens, calibration.window);
  }

  void write_own_part(const Progress& progress) {
    const int64_t tokens = calibration.sampled_tokens.value_or(2 * calibration.tokens);
    if (tokens == 0) return;
    const Model model = Model::load(source.dir, progress);
    const int64_t goal = text.tokens() + tokens;
    add_sampled_windows(context, model, tokens, calibration.window, options.seed, text, [&] {
      if (progress) progress("sample", text.tokens(), goal);
    });
  }

  Stream start() { return Stream(context, config, weights, text); }

  Heads load(int64_t layer) const {
    return load_heads(config, layer, attention_tensors(source.checkpoint, layer));
  }

  Heads merged(const LayerStudy& study, int64_t layer, const HeadGroups& groups) const {
    if (options.merge == "pca") return closed_form(study, groups);
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
    const BlockShape shape(config, text, heads.q_begin);
    BlockAttention block(context.impl(), shape, inputs);
    block.run(block_weights(heads));
    return block.output();
  }

  Heads as_stored(Heads heads, int64_t layer) const {
    const AttentionTensors t = attention_tensors(source.checkpoint, layer);
    const auto round = [&](const Tensor* tensor, Matrix& values) {
      round_to(options.output.dtype.value_or(*tensor->dtype), values);
    };
    round(t.q, heads.q);
    round(t.k, heads.k);
    round(t.v, heads.v);
    round(t.o, heads.o);
    return heads;
  }

  Heads convert_next(const HeadGroups& groups, const std::function<void()>& interrupt) {
    const int64_t layer = next++;
    if (!converted) {
      converted = std::make_unique<Stream>(start());
      original = std::make_unique<Stream>(start());
    }
    const LayerStudy study =
        study_layer(context.impl(), config, text, load(layer), converted->attention_inputs(layer));
    Heads result = merged(study, layer, groups);
    if (calibration.steps > 0 && std::ssize(groups) < study.heads.kv_heads()) {
      const Rows target = study.output + made_good * (original->hidden() - converted->hidden());
      const BlockShape shape(config, text, result.q_begin);
      result = fit_block(context.impl(), shape, study.inputs, target, result,
                         {.steps = calibration.steps, .seed = options.seed}, interrupt)
                   .heads;
    }
    converted->pass(layer, output_of(as_stored(result, layer), study.inputs));
    original->pass(layer, output_of(study.heads, original->attention_inputs(layer)));
    return result;
  }
};

Calibrator::Calibrator(const SourceModel& source, const ConvertOptions& options,
                       const Progress& progress)
    : impl_(std::make_unique<Impl>(source, options, progress)) {}
Calibrator::~Calibrator() = default;

int64_t Calibrator::tokens() const { return impl_->text.tokens(); }
int64_t Calibrator::memory_bytes() const {
  const ModelConfig& c = impl_->config;
  const int64_t widest = std::max(c.width, c.q_heads * c.head_dim);
  int64_t pairs = 0;
  for (const auto& window : impl_->text.windows) pairs += std::ssize(window) * std::ssize(window);
  // Measured: the program with BLAS; rows of activations at a time; and, of the shape of a
  // projection in double, the layer before and after, and what conjugate gradients keep. Moments
  // of inputs come for every query head.
  constexpr int64_t program = int64_t{24} << 20;
  constexpr int64_t rows = 14;
  constexpr int64_t projections = 12;
  return program + 4 * c.q_heads * pairs + 4 * rows * impl_->text.tokens() * widest +
         8 * (c.q_heads + projections) * c.width * widest;
}

const std::string& Calibrator::text_sha256() const { return impl_->sha256; }

LayerStudy Calibrator::study(int64_t layer) {
  Impl& s = *impl_;
  if (!s.studied) s.studied = std::make_unique<Stream>(s.start());
  LayerStudy study = study_layer(s.context.impl(), s.config, s.text, s.load(layer),
                                 s.studied->attention_inputs(layer));
  s.studied->pass(layer, study.output);
  if (layer + 1 == s.config.n_layers) s.studied.reset();
  return study;
}

HeadGroups Calibrator::best_groups(const LayerStudy& study,
                                   const std::vector<HeadGroups>& candidates) {
  Impl& s = *impl_;
  const HeadGroups* best = nullptr;
  double least = 0;
  for (const HeadGroups& groups : candidates) {
    const Heads heads = closed_form(study, groups);
    const BlockShape shape(s.config, s.text, heads.q_begin);
    const double error =
        fit_block(s.context.impl(), shape, study.inputs, study.output, heads, {.steps = 0}).after;
    if (best != nullptr && error >= least) continue;
    best = &groups;
    least = error;
  }
  return *best;
}

MergedLayer Calibrator::convert(int64_t layer, const std::vector<HeadGroups>& groups,
                                const std::function<void()>& interrupt) {
  Heads result;
  while (impl_->next <= layer) {
    result = impl_->convert_next(groups[static_cast<size_t>(impl_->next)], interrupt);
  }
  return merged_layer(std::move(result), impl_->config);
}

}  // namespace gqa
