#include "gqa/generate.h"

#include <algorithm>
#include <utility>

#include "core/fail.h"
#include "model/batch.h"

namespace gqa {
namespace {

/// BOS, if the model has one, and the prompt.
std::vector<int32_t> encode_prompt(const Model& model, const Tokenizer& tokenizer,
                                   std::string_view prompt) {
  require(!prompt.empty(), "the prompt is empty: give at least one character to continue");
  std::vector<int32_t> ids;
  if (model.config().bos_token_id) ids.push_back(*model.config().bos_token_id);
  const auto encoded = tokenizer.encode(prompt);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  require(!ids.empty(), "the prompt has no tokens: the tokenizer leaves out all of it");
  return ids;
}

int64_t tokens_to_make(const Model& model, int64_t prompt_tokens, std::optional<int64_t> wanted) {
  const int64_t limit = model.config().max_positions;
  require(prompt_tokens < limit,
          "the prompt has {} tokens (BOS included), the model's context holds {}", prompt_tokens,
          limit);
  if (!wanted) return std::min<int64_t>(256, limit - prompt_tokens);
  require(*wanted >= 1, "max tokens is {}, expected 1 or more", *wanted);
  require(*wanted <= limit - prompt_tokens,
          "{} prompt tokens (BOS included) and {} new ones are more than the model's context of {}",
          prompt_tokens, *wanted, limit);
  return *wanted;
}

Request checked(const Model& model, const Tokenizer& tokenizer, std::string_view prompt,
                const GenerateOptions& options) {
  Request request{.prompt = encode_prompt(model, tokenizer, prompt)};
  request.max_tokens = tokens_to_make(model, std::ssize(request.prompt), options.max_tokens);
  return request;
}

std::vector<Request> checked(const Model& model, const Tokenizer& tokenizer,
                             std::span<const Prompt> prompts, const GenerateOptions& options) {
  std::vector<Request> requests;
  for (const Prompt& prompt : prompts) {
    try {
      requests.push_back(checked(model, tokenizer, prompt.text, options));
    } catch (const Error& error) {
      const std::string name =
          prompt.name.empty() ? fmt::format("prompt {}", requests.size() + 1) : prompt.name;
      fail(error.kind(), "{}: {}", name, error.what());
    }
  }
  return requests;
}

}  // namespace

void check_vocabulary(const ModelConfig& config, const Tokenizer& tokenizer,
                      const std::filesystem::path& dir) {
  if (tokenizer.id_limit() <= config.vocab_size) return;
  fail(ErrorKind::bad_data,
       "{}: ids up to {} need a vocabulary of {}, config.json has vocab_size {}",
       (dir / "tokenizer.json").string(), tokenizer.id_limit() - 1, tokenizer.id_limit(),
       config.vocab_size);
}

Generated generate(Context& context, const Model& model, const Tokenizer& tokenizer,
                   std::string_view prompt, const GenerateOptions& options, const TextSink& sink,
                   const Progress& progress) {
  Request request = checked(model, tokenizer, prompt, options);
  const int64_t prompt_tokens = std::ssize(request.prompt);
  const int64_t max_tokens = request.max_tokens;
  Batch batch(context, model, tokenizer, options, {std::move(request)}, 1);
  const Generated& result = batch.result(0);
  size_t said = 0;
  const auto say_more = [&] {
    const std::string_view piece = std::string_view(result.text).substr(said);
    said = result.text.size();
    if (sink && !piece.empty()) sink(piece);
  };
  int64_t made = 0;
  while (batch.forward()) {
    if (progress && made == 0) progress("prefill", batch.done(), prompt_tokens);
    say_more();
    batch.draw();
    say_more();
    if (std::ssize(result.tokens) == made) continue;  // still reading, or it has ended
    ++made;
    if (progress) progress("decode", made, max_tokens);
  }
  return batch.take(0);
}

BatchStats generate_batch(Context& context, const Model& model, const Tokenizer& tokenizer,
                          std::span<const Prompt> prompts, const GenerateOptions& options,
                          int64_t batch, const ResultSink& sink, const Progress& progress) {
  require(batch >= 1, "batch is {}, expected 1 or more", batch);
  Batch running(context, model, tokenizer, options, checked(model, tokenizer, prompts, options),
                batch);
  const Stopwatch stopwatch;
  size_t next = 0;
  while (running.forward()) {
    running.draw();
    for (; next < prompts.size() && running.ended(next); ++next) sink(next, running.take(next));
    if (progress) progress("generate", running.done(), running.total());
  }
  BatchStats stats = running.stats();
  stats.seconds = stopwatch.seconds();
  return stats;
}

}  // namespace gqa
