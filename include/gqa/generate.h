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

#include "gqa/model.h"
#include "gqa/tokenizer.h"

namespace gqa {

struct SamplingOptions {
  float temperature = 0.0f;         ///< 0: greedy
  int64_t top_k = 0;                ///< 0: all
  float top_p = 1.0f;               ///< nucleus sampling (Holtzman et al. 2020)
  float repetition_penalty = 1.0f;  ///< Keskar et al. 2019
  uint64_t seed = 0;
};

/// Draws token ids from logits. The same seed gives the same ids on every machine that computes the
/// same logits.
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
};

struct GenerateOptions {
  std::optional<int64_t>
      max_tokens;  ///< new tokens at most; none: 256, or what the context still holds
  SamplingOptions sampling = {};
  std::optional<DType> kv_dtype = {};  ///< none: Model::default_kv_dtype()
};

struct Generated {
  std::vector<int32_t> prompt_tokens;  ///< BOS included, if the model has one
  std::vector<int32_t> tokens;         ///< the new ones; an end token is not among them
  std::string text;                    ///< prompt and continuation, special tokens left out
  double prefill_seconds = 0;
  double decode_seconds = 0;
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

/// Throws Error (bad_data, naming the folder) where the tokenizer has ids that the model has not.
void check_vocabulary(const ModelConfig& config, const Tokenizer& tokenizer,
                      const std::filesystem::path& dir);

}  // namespace gqa
