#include "regroup/sampled_text.h"

#include <algorithm>

#include "core/checked.h"
#include "core/random.h"
#include "gqa/generate.h"

namespace gqa {
namespace {

class Writer {
 public:
  Writer(Context& context, const Model& model, int64_t window, uint64_t seed)
      : context_(context),
        model_(model),
        window_(std::min(window, model.config().max_positions)),
        random_(seed, RandomUse::text, 0) {}

  /// `n` windows, side by side.
  std::vector<std::vector<int32_t>> write(int64_t n, const std::function<void()>& interrupt) {
    KvCache cache = model_.make_cache(KvDType::f32);
    std::vector<std::vector<int32_t>> windows;
    std::vector<Sampler> samplers;
    std::vector<int64_t> sequences;
    for (int64_t i = 0; i < n; ++i) {
      windows.push_back({first_token()});
      samplers.emplace_back(SamplingOptions{.temperature = 1.0f, .seed = random_.below(~0ull)});
      sequences.push_back(cache.create());
    }
    for (int64_t length = 1; length < window_; ++length) {
      if (interrupt) interrupt();
      std::vector<size_t> going;
      std::vector<Model::Step> steps;
      for (size_t i = 0; i < windows.size(); ++i) {
        if (std::ssize(windows[i]) < length || has_ended(windows[i])) continue;
        going.push_back(i);
        steps.push_back({sequences[i], std::span(&windows[i].back(), 1)});
      }
      if (going.empty()) break;
      model_.forward(context_, cache, steps, hidden_);
      const auto vocab = static_cast<size_t>(model_.config().vocab_size);
      logits_.resize(going.size() * vocab);
      model_.logits(context_, hidden_, logits_);
      for (size_t i = 0; i < going.size(); ++i) {
        const std::span<float> row(logits_.data() + i * vocab, vocab);
        windows[going[i]].push_back(samplers[going[i]].next(row, {}));
      }
    }
    return windows;
  }

 private:
  int32_t first_token() {
    const ModelConfig& config = model_.config();
    if (config.bos_token_id) return *config.bos_token_id;
    return static_cast<int32_t>(random_.below(static_cast<uint64_t>(config.vocab_size)));
  }

  bool has_ended(const std::vector<int32_t>& window) const {
    const auto& ends = model_.config().eos_token_ids;
    return window.size() > 1 && std::ranges::find(ends, window.back()) != ends.end();
  }

  Context& context_;
  const Model& model_;
  int64_t window_;
  Random random_;
  std::vector<float> hidden_, logits_;
};

}  // namespace

int64_t sampled_at_a_time(const ModelConfig& config, int64_t window) {
  constexpr int64_t most = 16;
  constexpr int64_t most_bytes = int64_t{1} << 30;
  int64_t bytes = 0;
  for (const int64_t heads : config.kv_heads) {
    bytes += 2 * heads * config.head_dim * std::min(window, config.max_positions) *
             static_cast<int64_t>(sizeof(float));
  }
  return std::clamp<int64_t>(most_bytes / bytes, 1, most);
}

void add_sampled_windows(Context& context, const Model& model, int64_t tokens, int64_t window,
                         uint64_t seed, CalibrationWindows& text,
                         const std::function<void()>& interrupt) {
  Writer writer(context, model, window, seed);
  const int64_t batch = sampled_at_a_time(model.config(), window);
  const int64_t goal = text.tokens() + tokens;
  while (text.tokens() < goal) {
    const int64_t wanted = std::min(batch, ceil_div(goal - text.tokens(), window));
    for (auto& sampled : writer.write(wanted, interrupt)) {
      if (text.tokens() == goal) break;
      if (text.tokens() + std::ssize(sampled) > goal) {
        sampled.resize(static_cast<size_t>(goal - text.tokens()));
      }
      text.add(std::move(sampled));
    }
  }
}

}  // namespace gqa
