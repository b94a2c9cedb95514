#include "gqa/generate.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/args.h"
#include "cli/format.h"
#include "cli/input.h"
#include "cli/progress_bar.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

struct GenerateArgs {
  Common common;
  std::string model;
  std::optional<std::string> prompt;
  std::string prompt_file;
  std::optional<std::string> prompts_file;
  int64_t batch = 8;
  WeightDType weight_dtype = WeightDType::stored;
  GenerateOptions options;
};

/// An empty line where a prompt is due.
[[noreturn]] void fail_empty(const std::string& source) {
  throw Error(ErrorKind::bad_data, fmt::format("{}: expected a prompt, got an empty line", source));
}

std::string read_prompt(const GenerateArgs& args) {
  if (args.prompt_file.empty()) {
    if (!args.prompt) {
      throw Error(ErrorKind::usage,
                  "a prompt is missing: --prompt TEXT, --prompt-file FILE or --prompts FILE");
    }
    if (args.prompt->empty()) throw Error(ErrorKind::usage, "--prompt is empty: expected a text");
    check_utf8(*args.prompt, "--prompt");
    return *args.prompt;
  }
  std::string text = read_text_file(args.prompt_file);
  if (text.ends_with('\n')) text.pop_back();  // an editor's, not the author's
  if (text.empty()) fail_empty(args.prompt_file);
  return text;
}

/// One a line.
std::vector<Prompt> read_prompts(const std::string& file) {
  std::vector<Prompt> prompts;
  for (std::string& line : read_lines(file)) {
    std::string name = fmt::format("{}:{}", file, prompts.size() + 1);
    if (line.empty()) fail_empty(name);
    prompts.push_back({std::move(line), std::move(name)});
  }
  return prompts;
}

double decode_tokens_per_s(const Generated& result) {
  return static_cast<double>(result.tokens.size()) / result.decode_seconds;
}

Json as_json(const std::string& prompt, const Generated& result) {
  return {{"prompt", prompt},
          {"text", result.text},
          {"tokens", result.tokens},
          {"prompt_tokens", result.prompt_tokens},
          {"prefill_seconds", result.prefill_seconds},
          {"decode_seconds", result.decode_seconds},
          {"decode_tokens_per_s", decode_tokens_per_s(result)}};
}

void note_speed(const Common& common, const Generated& result) {
  const std::string speed = result.decode_seconds > 0
                                ? fmt::format(" ({:.0f} tokens/s)", decode_tokens_per_s(result))
                                : "";
  note(common, fmt::format("prompt {} in {}, then {} in {}{}",
                           counted(static_cast<int64_t>(result.prompt_tokens.size()), "token"),
                           human_seconds(result.prefill_seconds),
                           counted(static_cast<int64_t>(result.tokens.size()), "token"),
                           human_seconds(result.decode_seconds), speed));
}

int run_prompt(const GenerateArgs& args) {
  const std::string prompt = read_prompt(args);
  Context context(args.common.context());
  ProgressBar bar(args.common);
  const LoadedModel loaded = load_model(args.model, args.weight_dtype, bar.callback());
  const bool stream = !args.common.json;
  const TextSink sink = [&](std::string_view piece) {
    throw_if_interrupted();
    if (!stream) return;
    bar.erase();
    print(piece);
  };
  // Text that streams shows how far it is by itself.
  const Progress progress = [&, draw = bar.callback()](std::string_view what, int64_t done,
                                                       int64_t total) {
    if (!stream || what == "prefill") draw(what, done, total);
  };
  Generated result;
  try {
    result =
        generate(context, loaded.model, loaded.tokenizer, prompt, args.options, sink, progress);
  } catch (const Error& error) {
    if (stream && error.kind() == ErrorKind::interrupted) print("\n");
    throw;
  }
  bar.erase();
  if (stream) {
    print("\n");
    note_speed(args.common, result);
  } else {
    print_json(as_json(prompt, result));
  }
  return 0;
}

void note_batch(const Common& common, size_t prompts, const BatchStats& stats) {
  note(common, fmt::format("{}, {} read of which {} shared, {} made in {} ({:.0f} tokens/s), "
                           "KV cache {} at most",
                           counted(static_cast<int64_t>(prompts), "prompt"),
                           counted(stats.prompt_tokens, "token"), grouped(stats.shared_tokens),
                           grouped(stats.new_tokens), human_seconds(stats.seconds),
                           static_cast<double>(stats.new_tokens) / stats.seconds,
                           human_bytes(stats.peak_kv_bytes)));
}

int run_prompts(const GenerateArgs& args) {
  const std::vector<Prompt> prompts = read_prompts(*args.prompts_file);
  Context context(args.common.context());
  ProgressBar bar(args.common);
  const LoadedModel loaded = load_model(args.model, args.weight_dtype, bar.callback());
  const ResultSink sink = [&](size_t index, const Generated& result) {
    bar.erase();
    if (args.common.json) {
      print_json(
          {{"prompt", prompts[index].text}, {"text", result.text}, {"tokens", result.tokens}});
    } else {
      print((index == 0 ? "" : "\n") + result.text + "\n");
    }
  };
  const BatchStats stats = generate_batch(context, loaded.model, loaded.tokenizer, prompts,
                                          args.options, args.batch, sink, bar.callback());
  bar.erase();
  note_batch(args.common, prompts.size(), stats);
  return 0;
}

void add_sampling(Command& verb, SamplingOptions& sampling) {
  add_value(verb, "--temperature", "T", "0: the likeliest token each time; default: 0",
            [&sampling](const std::string& value) {
              sampling.temperature = parse_real("--temperature", value);
            });
  add_value(verb, "--top-k", "K", "Sample among the K likeliest tokens; 0: all; default: 0",
            [&sampling](const std::string& value) {
              sampling.top_k = parse_integer("--top-k", value, 0, INT64_MAX);
            });
  add_value(
      verb, "--top-p", "P",
      "Sample among the likeliest tokens that hold this share of the\nprobability; default: 1",
      [&sampling](const std::string& value) { sampling.top_p = parse_real("--top-p", value); });
  add_value(verb, "--repetition-penalty", "R",
            "Above 1: tokens seen before become unlikelier; default: 1",
            [&sampling](const std::string& value) {
              sampling.repetition_penalty = parse_real("--repetition-penalty", value);
            });
  add_value(verb, "--seed", "S", "Seed of the sampling; default: 0",
            [&sampling](const std::string& value) { sampling.seed = parse_seed("--seed", value); });
}

}  // namespace

void declare_generate(Command& verb) {
  auto args = std::make_shared<GenerateArgs>();
  add_model(verb, args->model);
  add_value(verb, "--prompt", "TEXT", "Text to continue, UTF-8",
            [args](const std::string& value) { args->prompt = value; });
  add_value(verb, "--prompt-file", "FILE",
            "The same from a file; one line break at its end is left out",
            [args](const std::string& value) { args->prompt_file = value; })
      .excludes = {"--prompt"};
  add_value(verb, "--prompts", "FILE",
            "Many texts to continue, one a line; with --json an object for each",
            [args](const std::string& value) { args->prompts_file = value; })
      .excludes = {"--prompt", "--prompt-file"};
  add_value(verb, "--batch", "N", "How many of --prompts decode together at most; default: 8",
            [args](const std::string& value) {
              args->batch = parse_integer("--batch", value, 1, INT64_MAX);
            })
      .needs = {"--prompts"};
  add_value(verb, "--max-tokens", "N",
            "New tokens at most; default: 256, or what the context still holds",
            [args](const std::string& value) {
              args->options.max_tokens = parse_integer("--max-tokens", value, 1, INT64_MAX);
            });
  add_sampling(verb, args->options.sampling);
  add_attention(verb, args->options.attention);
  add_kv_dtype(verb, args->options.kv_dtype);
  add_weight_dtype(verb, args->weight_dtype);
  add_common(verb, args->common);
  verb.run = [args] { return args->prompts_file ? run_prompts(*args) : run_prompt(*args); };
}

}  // namespace gqa::cli
