#include "model/continuation.h"

#include <algorithm>
#include <utility>

namespace gqa {

Continuation::Continuation(const ModelConfig& config, const Tokenizer& tokenizer, Sampler sampler,
                           int64_t max_tokens, Generated& result)
    : config_(&config),
      result_(&result),
      sampler_(std::move(sampler)),
      stream_(tokenizer),
      max_tokens_(max_tokens),
      ids_(result.prompt_tokens) {}

void Continuation::start() {
  result_->prefill_seconds = stopwatch_.seconds();
  stopwatch_ = {};
  for (const int32_t id : ids_) result_->text += stream_.push(id);
}

bool Continuation::draw(std::span<float> logits) {
  const int32_t id = sampler_.next(logits, ids_);
  const bool end = is_end(id);
  if (!end) {
    ids_.push_back(id);
    result_->tokens.push_back(id);
    result_->text += stream_.push(id);
    if (std::ssize(result_->tokens) < max_tokens_) return true;
  }
  result_->text += stream_.finish();
  result_->decode_seconds = stopwatch_.seconds();
  return false;
}

bool Continuation::is_end(int32_t id) const {
  const auto& ends = config_->eos_token_ids;
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

}  // namespace gqa
