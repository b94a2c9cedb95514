#include "gqa/generate.h"

#include <algorithm>
#include <chrono>

#include "core/fail.h"

namespace gqa {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// BOS, if the model has one, and the prompt.
std::vector<int32_t> encode_prompt(const Model& model, const Tokenizer& tokenizer,
                                   std::string_view prompt) {
  require(!prompt.empty(), "the prompt is empty: give at least one character to continue");
  std::vector<int32_t> ids;
  if (model.config().bos_token_id) ids.push_back(*model.config().bos_token_id);
  const auto encoded = tokenizer.encode(prompt);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
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

/// Tokens are fed in pieces of this many, so that activations stay small for long prompts.
constexpr int64_t prefill_chunk = 512;

/// Feeds tokens; hidden is then the last one's.
void feed(Context& context, const Model& model, KvCache& cache, int64_t sequence,
          std::span<const int32_t> tokens, std::vector<float>& hidden,
          const Progress& progress = {}) {
  for (size_t at = 0; at < tokens.size();) {
    const auto n = std::min(tokens.size() - at, static_cast<size_t>(prefill_chunk));
    const Model::Step step{sequence, tokens.subspan(at, n)};
    model.forward(context, cache, std::span(&step, 1), hidden);
    at += n;
    if (progress) progress("prefill", static_cast<int64_t>(at), std::ssize(tokens));
  }
  hidden.erase(hidden.begin(), hidden.end() - model.config().width);
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
  Sampler sampler(options.sampling);
  Generated result;
  result.prompt_tokens = encode_prompt(model, tokenizer, prompt);
  const int64_t wanted =
      tokens_to_make(model, static_cast<int64_t>(result.prompt_tokens.size()), options.max_tokens);

  KvCache cache = model.make_cache(options.kv_dtype.value_or(model.default_kv_dtype()));
  const int64_t sequence = cache.create();
  std::vector<int32_t> ids = result.prompt_tokens;
  std::vector<float> hidden;
  std::vector<float> logits(static_cast<size_t>(model.config().vocab_size));
  const auto prefill_start = std::chrono::steady_clock::now();
  feed(context, model, cache, sequence, ids, hidden, progress);
  result.prefill_seconds = seconds_since(prefill_start);

  TextStream stream(tokenizer);
  const auto say = [&](const std::string& piece) {
    result.text += piece;
    if (sink && !piece.empty()) sink(piece);
  };
  for (const int32_t id : ids) say(stream.push(id));

  const auto decode_start = std::chrono::steady_clock::now();
  const auto& ends = model.config().eos_token_ids;
  while (true) {
    model.logits(context, hidden, logits);
    const int32_t id = sampler.next(logits, ids);
    if (std::find(ends.begin(), ends.end(), id) != ends.end()) break;
    ids.push_back(id);
    result.tokens.push_back(id);
    say(stream.push(id));
    if (progress) progress("decode", std::ssize(result.tokens), wanted);
    if (std::ssize(result.tokens) == wanted) break;
    feed(context, model, cache, sequence, std::span(&id, 1), hidden);
  }
  result.decode_seconds = seconds_since(decode_start);
  say(stream.finish());
  return result;
}

}  // namespace gqa
