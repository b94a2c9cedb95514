#include "gqa/eval.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "cli/args.h"
#include "cli/attention_report.h"
#include "cli/format.h"
#include "cli/input.h"
#include "cli/progress_bar.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

struct EvalArgs {
  Common common;
  std::string model;
  std::string text;
  std::string against;
  WeightDType weight_dtype = WeightDType::stored;
  EvalOptions options;
};

/// Token by token, models compare only where they read the same tokens.
void check_same_tokens(const EvalArgs& args, const Tokenizer& tokenizer, const std::string& text) {
  const auto file = std::filesystem::path(args.against) / "tokenizer.json";
  if (!std::filesystem::exists(file)) return;
  if (Tokenizer::load(file).encode(text) == tokenizer.encode(text)) return;
  throw Error(
      ErrorKind::bad_data,
      fmt::format("{}: expected the tokens that the tokenizer of {} gives for {}, got others",
                  file.string(), args.model, args.text));
}

EvalResult measure(const EvalArgs& args, Context& context, const Progress& progress) {
  const std::string text = read_text_file(args.text);
  const LoadedModel loaded = load_model(args.model, args.weight_dtype, progress);
  std::optional<Model> against;
  if (!args.against.empty()) {
    against = Model::load(args.against, progress);
    check_same_tokens(args, loaded.tokenizer, text);
  }
  return evaluate(context, loaded.model, loaded.tokenizer, text, args.options,
                  against ? &*against : nullptr, progress);
}

Json attention_json(const AttentionSpec& spec, const ApproxStats& stats) {
  Json object{{"attention", attention_text(spec)},
              {"select_seconds", stats.select_seconds},
              {"attend_seconds", stats.attend_seconds}};
  object.update(shares_json(shares_of(stats)));
  return object;
}

void add_attention_fields(Fields& fields, const AttentionSpec& spec, const ApproxStats& stats) {
  fields.add("attention", attention_text(spec));
  add_shares(fields, shares_of(stats));
  fields.add("selection", human_seconds(stats.select_seconds));
  fields.add("attention time", human_seconds(stats.attend_seconds));
}

Json as_json(const EvalArgs& args, const EvalResult& result) {
  Json object{{"nll", result.nll},
              {"ppl", result.ppl},
              {"bits_per_byte", result.bits_per_byte},
              {"tokens", result.tokens},
              {"context", result.context},
              {"seconds", result.seconds}};
  if (result.kl) object["kl"] = *result.kl;
  if (result.top1_agreement) object["top1_agreement"] = *result.top1_agreement;
  if (result.attention) object.update(attention_json(args.options.attention, *result.attention));
  return object;
}

std::string as_text(const EvalArgs& args, const EvalResult& result) {
  Fields fields;
  fields.add("nll", fmt::format("{:.5f} nats per token", result.nll));
  fields.add("ppl", fmt::format("{:.4f}", result.ppl));
  fields.add("bits per byte", fmt::format("{:.4f}", result.bits_per_byte));
  if (result.kl) fields.add("kl", fmt::format("{:.5f} nats per token", *result.kl));
  if (result.top1_agreement) {
    fields.add("top-1 agreement", fmt::format("{:.2f} %", *result.top1_agreement * 100));
  }
  if (result.attention) add_attention_fields(fields, args.options.attention, *result.attention);
  fields.add("tokens", fmt::format("{}, context {}", grouped(result.tokens), result.context));
  fields.add("time", human_seconds(result.seconds));
  return fields.text();
}

int run_eval(const EvalArgs& args) {
  Context context(args.common.context());
  ProgressBar bar(args.common);
  const EvalResult result = measure(args, context, bar.callback());
  bar.erase();
  if (args.common.json) {
    print_json(as_json(args, result));
  } else {
    print(as_text(args, result));
  }
  return 0;
}

}  // namespace

void declare_eval(Command& verb) {
  auto args = std::make_shared<EvalArgs>();
  add_model(verb, args->model);
  add_required(verb, "--text", args->text, "FILE", "Text to predict, UTF-8");
  add_value(verb, "--against", "DIR",
            "Original model: adds the KL divergence from it and the share of\ntokens where both "
            "rank the same one first",
            [args](const std::string& value) { args->against = value; });
  add_value(verb, "--context", "N",
            "Tokens a window, BOS included;\ndefault: the model's limit, at most 2048",
            [args](const std::string& value) {
              args->options.context = parse_integer("--context", value, 2, INT64_MAX);
            });
  add_attention(verb, args->options.attention);
  add_kv_dtype(verb, args->options.kv_dtype);
  add_weight_dtype(verb, args->weight_dtype);
  add_common(verb, args->common);
  verb.run = [args] { return run_eval(*args); };
}

}  // namespace gqa::cli
