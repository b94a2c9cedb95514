// A model's forward passes beside the machine's ceilings.
#include <algorithm>
#include <random>
#include <vector>

#include "bench/counting.h"
#include "bench/read_memory.h"
#include "bench/sgemm.h"
#include "bench/timing.h"
#include "core/fail.h"
#include "gqa/bench.h"
#include "gqa/generate.h"
#include "kernels/context.h"
#include "model/batch.h"

namespace gqa {
namespace {

constexpr int default_repeats = 3;

/// Gives the number of prompt tokens.
int64_t check(const ModelConfig& config, const ModelBench& b, const BenchOptions& options) {
  const int64_t limit = config.max_positions;
  require(b.new_tokens >= 1 && b.new_tokens < limit,
          "new_tokens is {}, expected 1 to {}: the model's context, less a prompt", b.new_tokens,
          limit - 1);
  require(b.batch >= 1, "batch is {}, expected 1 or more", b.batch);
  require(options.repeats >= 0, "repeats is {}, expected 0 or more", options.repeats);
  const int64_t room = limit - b.new_tokens;
  const int64_t prompt = b.prompt_tokens.value_or(std::min<int64_t>(512, room));
  require(prompt >= 1 && prompt <= room,
          "prompt_tokens is {}, expected 1 to {}: the model's context, less the new tokens", prompt,
          room);
  return prompt;
}

/// A batch of sequences at work.
class Sequences {
 public:
  Sequences(Context& context, const Model& model, const ModelBench& b, int64_t prompt_tokens)
      : context_(context),
        model_(model),
        cache_(model.make_cache(b.kv_dtype.value_or(model.default_kv_dtype()))),
        prompt_(static_cast<size_t>(prompt_tokens)),
        next_(static_cast<size_t>(b.batch)) {
    std::minstd_rand random(1);
    for (int32_t& id : prompt_) {
      id = static_cast<int32_t>(random() % static_cast<uint64_t>(model.config().vocab_size));
    }
    for (int64_t i = 0; i < b.batch; ++i) ids_.push_back(cache_.create());
  }

  void forget() {
    for (const int64_t id : ids_) cache_.truncate(id, 0);
  }

  /// Reads the prompt into every sequence, in pieces as generate() does, one sequence after the
  /// other, and draws its first token.
  void prefill() {
    const std::span<const int32_t> prompt(prompt_);
    for (size_t i = 0; i < ids_.size(); ++i) {
      for (size_t at = 0; at < prompt.size(); at += tokens_to_read) {
        const size_t n = std::min<size_t>(tokens_to_read, prompt.size() - at);
        const Model::Step step{ids_[i], prompt.subspan(at, n)};
        model_.forward(context_, cache_, std::span(&step, 1), hidden_);
      }
      const auto width = static_cast<size_t>(model_.config().width);
      draw(std::span(hidden_).last(width), std::span(next_).subspan(i, 1));
    }
  }

  /// A token more of every sequence.
  void decode() {
    steps_.clear();
    for (size_t i = 0; i < ids_.size(); ++i) {
      steps_.push_back({ids_[i], std::span(next_).subspan(i, 1)});
    }
    model_.forward(context_, cache_, steps_, hidden_);
    draw(hidden_, next_);
  }

  /// The tokens that the next step's queries see, its own among them.
  std::vector<KeyRange> next_keys() const {
    return bench::seen_keys({.window = model_.config().window}, 1, len() + 1);
  }

  /// The pages of what the last step read.
  void append_read_pages(std::vector<bench::Piece>& pieces) const {
    const auto keys = bench::seen_keys({.window = model_.config().window}, 1, len());
    for (const int64_t id : ids_) {
      for (int64_t layer = 0; layer < model_.config().n_layers; ++layer) {
        const PackedKv view = cache_.view(id, layer);
        for (const KeyRange& run : keys) bench::append_pages(view.layer(), run, pieces);
      }
    }
  }

  int64_t len() const { return cache_.len(ids_.front()); }
  const KvShape& shape() const { return cache_.shape(); }

 private:
  /// The likeliest token of each row [width] of `hidden`.
  void draw(std::span<const float> hidden, std::span<int32_t> next) {
    const auto vocabulary = static_cast<size_t>(model_.config().vocab_size);
    logits_.resize(next.size() * vocabulary);
    model_.logits(context_, hidden, logits_);
    for (size_t i = 0; i < next.size(); ++i) {
      next[i] = sampler_.next(std::span(logits_).subspan(i * vocabulary, vocabulary), {});
    }
  }

  Context& context_;
  const Model& model_;
  KvCache cache_;
  std::vector<int32_t> prompt_;
  std::vector<int32_t> next_;  ///< a token for each sequence
  std::vector<int64_t> ids_;
  Sampler sampler_{SamplingOptions{}};
  std::vector<Model::Step> steps_;
  std::vector<float> hidden_;
  std::vector<float> logits_;
};

}  // namespace

ModelBenchResult bench_model(Context& context, const Model& model, const ModelBench& b,
                             const BenchOptions& options, const Progress& progress) {
  const int64_t prompt_tokens = check(model.config(), b, options);
  Sequences sequences(context, model, b, prompt_tokens);
  std::vector<bench::Piece> pieces;
  for (const auto& memory : model.weights_read()) bench::append_pieces(memory, pieces);
  const size_t weight_pieces = pieces.size();
  const int64_t weight_bytes = bench::total_bytes(pieces);

  bench::Sgemm sgemm(context.impl().pool, options.gemm_size);
  bench::Timing prefill_time;
  bench::Timing step_time;
  bench::Timing read_time;
  bench::Timing sgemm_time;
  double seen_tokens = 0;  // of a sequence, summed over steps
  double read_bytes = 0;
  bench::Turns turns(options.repeats == 0 ? default_repeats : options.repeats, progress);
  const auto turn = [&] {
    sequences.forget();
    sgemm_time.time([&] { sgemm.run(context.impl().pool); });
    prefill_time.time([&] { sequences.prefill(); });
    for (int64_t i = 0; i < b.new_tokens; ++i) {
      seen_tokens += static_cast<double>(bench::count_keys(sequences.next_keys()));
      step_time.time([&] { sequences.decode(); });
      pieces.resize(weight_pieces);
      sequences.append_read_pages(pieces);
      read_bytes += static_cast<double>(bench::total_bytes(pieces));
      read_time.time([&] { bench::read_memory(context.impl().pool, pieces); });
      turns.report();
    }
  };
  turn();
  for (auto* timing : {&prefill_time, &step_time, &read_time, &sgemm_time}) timing->clear();
  seen_tokens = read_bytes = 0;
  while (turns.next()) turn();

  const double steps = static_cast<double>(turns.done()) * static_cast<double>(b.new_tokens);
  const auto batch = static_cast<double>(b.batch);
  ModelBenchResult result;
  result.prompt_tokens = prompt_tokens;
  result.kv_dtype = sequences.shape().dtype;
  result.prefill_ms = prefill_time.ms();
  result.ms = step_time.ms();
  result.prefill_tokens_per_s =
      batch * static_cast<double>(prompt_tokens) / prefill_time.median_seconds();
  result.decode_tokens_per_s = batch / step_time.median_seconds();
  result.weight_bytes = weight_bytes;
  const double bytes_per_token = batch * static_cast<double>(sequences.shape().bytes_per_token());
  result.kv_bytes = static_cast<int64_t>(seen_tokens / steps * bytes_per_token);
  result.gb_per_s = {
      bench::giga_per_s(static_cast<double>(weight_bytes + result.kv_bytes), step_time),
      bench::giga_per_s(read_bytes / steps, read_time)};
  result.gflop_per_s = {
      bench::giga_per_s(batch * bench::prefill_flop(model.config(), prompt_tokens), prefill_time),
      bench::giga_per_s(sgemm.flop(), sgemm_time)};
  const bench::Timing* const timed[] = {&prefill_time, &step_time};
  result.cpu_fraction = bench::cpu_fraction(timed, context.threads());
  result.repeats = turns.done();
  return result;
}

}  // namespace gqa
