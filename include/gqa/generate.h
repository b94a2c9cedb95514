// Sampling and text generation.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gqa/attention_spec.h"
#include "gqa/model.h"
#include "gqa/tokenizer.h"

namespace gqa {
#pragma GCC visibility push(default)

struct SamplingOptions {
  float temperature = 0.0f;         ///< 0: greedy
  int64_t top_k = 0;                ///< 0: all
  float top_p = 1.0f;               ///< nucleus sampling (Holtzman et al. 2020)
  float repetition_penalty = 1.0f;  ///< Keskar et al. 2019
  uint64_t seed = 0;
};

/// Draws token ids from logits. Allocates only while it sees more logits or ids than before. The
/// same seed gives the same ids on every machine that computes the same logits.
class Sampler {
 public:
  /// Throws Error (usage) for an option out of range.
  explicit Sampler(const SamplingOptions& options);
  /// logits [vocab_size] are changed. `seen`: the ids so far, prompt included, for the penalty.
  int32_t next(std::span<float> logits, std::span<const int32_t> seen);

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<int32_t> order_;
  std::vector<int32_t> penalised_;
  std::vector<double> weight_;
};

struct GenerateOptions {
  std::optional<int64_t>
      max_tokens;  ///< new tokens at most; none: 256, or what the context still holds
  SamplingOptions sampling = {};
  std::optional<KvDType> kv_dtype = {};  ///< none: Model::default_kv_dtype()
  AttentionSpec attention = ExactAttention{};
};

struct Generated {
  std::vector<int32_t> prompt_tokens;  ///< BOS included, if the model has one
  std::vector<int32_t> tokens;         ///< the new ones; an end token is not among them
  std::string text;                    ///< prompt and continuation, special tokens left out
  double prefill_seconds = 0;          ///< until the prompt was read; in a batch, since it joined
  double decode_seconds = 0;           ///< from then to the end
};

/// Called with each piece of text as it comes, the prompt first (once it has been read).
using TextSink = std::function<void(std::string_view piece)>;

/// Continues a prompt. Ends at an end token or after max_tokens. Throws Error: usage for an empty
/// prompt or for more tokens than the model's context holds, bad_data for invalid UTF-8 or where
/// the tokenizer gives ids outside the model's vocabulary. Progress counts the prompt's tokens
/// ("prefill"), then the new ones ("decode").
Generated generate(Context& context, const Model& model, const Tokenizer& tokenizer,
                   std::string_view prompt, const GenerateOptions& options,
                   const TextSink& sink = {}, const Progress& progress = {});

struct Prompt {
  std::string text;
  std::string name = {};  ///< what errors call it: "prompts.txt:3"; empty: "prompt 3" (the third)
};

struct BatchStats {
  int64_t prompt_tokens = 0;  ///< of all prompts, BOS included
  int64_t shared_tokens = 0;  ///< of them, those taken over from another prompt, not computed
  int64_t new_tokens = 0;     ///< made
  int64_t peak_kv_bytes = 0;  ///< of the KV cache, shared pages counted once
  double seconds = 0;         ///< of reading and decoding
};

/// Called with the result of each prompt, in the order of the prompts, as soon as it and all before
/// it have ended. May throw, as Progress may.
using ResultSink = std::function<void(size_t index, const Generated& result)>;

/// Continues many prompts, each exactly as generate() would with the same options (the seed too).
/// At most `batch` decode together; others join as they end. What a prompt's beginning has in
/// common with one of the `batch` prompts before it is computed once and shared, if it is 16 tokens
/// or more: so the KV cache never holds more than `batch` sequences that decode and `batch`
/// prefixes. Nothing is shared with clustered and dynamic attention: their groups are of queries,
/// which a cache does not hold. All prompts are checked before any work starts. Throws Error: usage
/// for a batch below 1, and what generate() throws, the prompt's name in front. Progress
/// ("generate") counts tokens.
BatchStats generate_batch(Context& context, const Model& model, const Tokenizer& tokenizer,
                          std::span<const Prompt> prompts, const GenerateOptions& options,
                          int64_t batch, const ResultSink& sink, const Progress& progress = {});

/// Throws Error (bad_data, naming the folder) where the tokenizer has ids that the model lacks.
void check_vocabulary(const ModelConfig& config, const Tokenizer& tokenizer,
                      const std::filesystem::path& dir);

#pragma GCC visibility pop
}  // namespace gqa
