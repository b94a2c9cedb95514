// One prompt being continued: its ids, its sampler, its text, and when it ends.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "gqa/config.h"
#include "gqa/generate.h"
#include "gqa/tokenizer.h"

namespace gqa {

/// Seconds since it was made.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Knows nothing of other prompts, batches or caches: whoever computes logits asks for ids() and
/// hands the last one's logits to draw(). So a text can't depend on what is computed beside it.
class Continuation {
 public:
  /// `result` holds the prompt's tokens and receives what is made of them. `sampler` is one that
  /// has drawn nothing. At most `max_tokens` new tokens, 1 or more. Config, tokenizer and result
  /// must stay where they are.
  Continuation(const ModelConfig& config, const Tokenizer& tokenizer, Sampler sampler,
               int64_t max_tokens, Generated& result);

  /// The prompt's and those drawn so far.
  std::span<const int32_t> ids() const { return ids_; }

  /// The prompt has been read: its text comes first.
  void start();
  /// Draws the next token from the logits [vocab_size] of the last id, and changes them. False if
  /// the text is now complete. Throws Error (bad_data) for logits that are not finite.
  bool draw(std::span<float> logits);

 private:
  bool is_end(int32_t id) const;

  const ModelConfig* config_;
  Generated* result_;
  Sampler sampler_;
  TextStream stream_;
  int64_t max_tokens_;
  std::vector<int32_t> ids_;
  Stopwatch stopwatch_;  ///< of reading, then of decoding
};

}  // namespace gqa
