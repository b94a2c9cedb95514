// How well a model predicts a text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gqa/approx.h"
#include "gqa/attention_spec.h"
#include "gqa/model.h"
#include "gqa/progress.h"
#include "gqa/tokenizer.h"

namespace gqa {
#pragma GCC visibility push(default)

struct EvalOptions {
  int64_t context = 0;  ///< tokens a window, BOS included; 0: the model's limit, at most 2048
  std::optional<KvDType> kv_dtype = {};  ///< none: Model::default_kv_dtype()
  AttentionSpec attention = ExactAttention{};
};

struct EvalResult {
  double nll = 0;            ///< mean over scored tokens, nats
  double ppl = 0;            ///< exp(nll)
  double bits_per_byte = 0;  ///< nll summed, in bits, over the bytes of the text
  int64_t tokens = 0;        ///< scored
  int64_t context = 0;
  double seconds = 0;
  // Against another model, token by token; empty without one.
  std::optional<double> kl;              ///< mean KL(other || this), nats
  std::optional<double> top1_agreement;  ///< share of tokens where both rank the same id first
  std::optional<ApproxStats> attention;  ///< empty where it was exact
};

/// The text is encoded as a whole without special tokens and cut into windows of context - 1
/// tokens. Each window starts with BOS and every one of its tokens is scored; the last short window
/// counts. A model without BOS starts each window with the window's own first token, unscored.
///
/// `against`: the original that this model is compared with, its attention exact; same vocabulary.
///
/// Throws Error: usage for a context below 2 or above the model's limit, bad_data for an empty
/// text, invalid UTF-8 or another vocabulary, and what Model::make_approximation() throws.
EvalResult evaluate(Context& context, const Model& model, const Tokenizer& tokenizer,
                    std::string_view text, const EvalOptions& options = {},
                    const Model* against = nullptr, const Progress& progress = {});

#pragma GCC visibility pop
}  // namespace gqa
