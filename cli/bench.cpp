#include "gqa/bench.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "cli/args.h"
#include "cli/bench_recall.h"
#include "cli/bench_report.h"
#include "cli/machine.h"
#include "cli/parse.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

// Bounds of options; what they come to together is for the library to judge.
constexpr int64_t most_heads = 1 << 16;
constexpr int64_t most_tokens = int64_t{1} << 40;
constexpr int64_t most_repeats = 1'000'000;

struct AttentionArgs {
  Common common;
  BenchOptions options;
  AttentionBench bench;
  std::optional<int64_t> v_head_dim;
  std::optional<int64_t> q_len;
  std::optional<KvDType> kv_dtype;
  std::string beside;  ///< changes that make another configuration; empty: none
};

struct BackwardArgs {
  Common common;
  BenchOptions options;
  BackwardBench bench;
  std::optional<int64_t> v_head_dim;
  std::optional<int64_t> q_len;
  std::optional<DType> dtype;
};

struct ModelArgs {
  Common common;
  BenchOptions options;
  std::string model;
  WeightDType weight_dtype = WeightDType::stored;
  ModelBench bench;
};

ContextOptions pinned(const Common& common) {
  ContextOptions options = common.context();
  options.pin = true;
  return options;
}

/// Caches that the last level can't hold, in at most half of the memory.
BenchOptions fitted(BenchOptions options, const Machine& machine) {
  if (machine.last_level_bytes) options.rotate_bytes = 2 * *machine.last_level_bytes;
  for (const auto& memory : {machine.memory_available_bytes, machine.memory_limit_bytes}) {
    if (memory) options.memory_bytes = std::min(options.memory_bytes, *memory / 2);
  }
  return options;
}

/// What a call of attention, forward or backward, is about.
template <typename Args>
void add_problem(Command& verb, const std::shared_ptr<Args>& args, const std::string& q_len) {
  auto& bench = args->bench;
  add_number(verb, "--q-heads", bench.q_heads, 1, most_heads, "Query heads; default: 32");
  add_number(verb, "--kv-heads", bench.kv_heads, 1, most_heads,
             "KV heads, a divisor of the query heads; default: 8");
  add_number(verb, "--head-dim", bench.head_dim, 1, most_heads, "Size of a head; default: 128");
  add_number(verb, "--v-head-dim", args->v_head_dim, 1, most_heads,
             "Size of a value head; default: that of --head-dim");
  add_number(verb, "--kv-len", bench.kv_len, 1, most_tokens,
             "Keys, the queries' own among them; default: " + std::to_string(bench.kv_len));
  add_number(verb, "--q-len", args->q_len, 1, most_tokens,
             "Query tokens, the last of the sequence; default: " + q_len);
  add_number(verb, "--window", bench.window, 0, most_tokens,
             "A token sees this many, itself included; 0: all; default: 0");
  add_value(
      verb, "--softcap", "X", "Soft cap of the scores; 0: none; default: 0",
      [args](const std::string& value) { args->bench.softcap = parse_real("--softcap", value); });
  add_flag(verb, "--sinks", bench.sinks, "A learned sink for each query head");
}

void add_attention_problem(Command& verb, const std::shared_ptr<AttentionArgs>& args,
                           const std::string& kind) {
  add_problem(verb, args, kind == "prefill" ? "all" : "1");
  add_kv_dtype(verb, args->kv_dtype, "f16");
}

void add_repeats(Command& verb, BenchOptions& options) {
  add_number(verb, "--repeats", options.repeats, 1, most_repeats,
             "Calls that are timed; default: for 2 seconds, 5 to 100");
}

AttentionBench bench_of(const AttentionArgs& args, const std::string& kind) {
  AttentionBench bench = args.bench;
  bench.v_head_dim = args.v_head_dim.value_or(bench.head_dim);
  bench.q_len = args.q_len.value_or(kind == "prefill" ? bench.kv_len : 1);
  bench.kv_dtype = args.kv_dtype.value_or(bench.kv_dtype);
  return bench;
}

/// The same with the changes that --beside lists, which are options without their dashes.
AttentionBench other_of(const AttentionArgs& args, const std::string& kind) {
  const auto changed = std::make_shared<AttentionArgs>(args);
  Command options;
  add_attention_problem(options, changed, kind);
  std::vector<std::string> words;
  std::istringstream list(args.beside);
  for (std::string word; std::getline(list, word, ',');) words.push_back("--" + word);
  try {
    parse_options(options, words);
  } catch (const Error& error) {
    throw Error(ErrorKind::usage, std::string("--beside: ") + error.what());
  }
  return bench_of(*changed, kind);
}

int run_attention(const AttentionArgs& args, const std::string& kind) {
  const AttentionBench bench = bench_of(args, kind);
  std::optional<AttentionBench> other;
  if (!args.beside.empty()) other = other_of(args, kind);
  const Machine machine = read_machine();
  const BenchOptions options = fitted(args.options, machine);
  Context context(pinned(args.common));
  ProgressBar bar(args.common);
  if (other) {
    const BesideBenchResult result = bench_beside(context, bench, *other, options, bar.callback());
    bar.erase();
    report_beside(args.common, kind, bench, *other, options.rotate_bytes, result, context, machine);
    return 0;
  }
  const AttentionBenchResult result = bench_attention(context, bench, options, bar.callback());
  bar.erase();
  report_attention(args.common, kind, bench, options.rotate_bytes, result, context, machine);
  return 0;
}

int run_backward(const BackwardArgs& args) {
  BackwardBench bench = args.bench;
  bench.v_head_dim = args.v_head_dim.value_or(bench.head_dim);
  bench.q_len = args.q_len.value_or(bench.kv_len);
  bench.dtype = args.dtype.value_or(bench.dtype);
  const Machine machine = read_machine();
  Context context(pinned(args.common));
  ProgressBar bar(args.common);
  const BackwardBenchResult result =
      bench_backward(context, bench, fitted(args.options, machine), bar.callback());
  bar.erase();
  report_backward(args.common, bench, result, context, machine);
  return 0;
}

int run_model(const ModelArgs& args) {
  Context context(pinned(args.common));
  ProgressBar bar(args.common);
  const Model model = Model::load(args.model, args.weight_dtype, bar.callback());
  const ModelBenchResult result =
      bench_model(context, model, args.bench, args.options, bar.callback());
  bar.erase();
  report_model(args.common, args.model, args.weight_dtype, args.bench, result, context,
               read_machine());
  return 0;
}

void declare_attention(Command& verb) {
  const std::string kind = verb.name;
  auto args = std::make_shared<AttentionArgs>();
  args->bench.kv_len = kind == "prefill" ? 2048 : 32768;
  add_attention_problem(verb, args, kind);
  add_attention(verb, args->bench.attention);
  add_value(verb, "--beside", "CHANGES",
            "Another configuration besides, call by call in turns: what is\nother there, as in "
            "kv-heads=32,kv-dtype=int8",
            [args](const std::string& value) {
              if (value.empty()) throw Error(ErrorKind::usage, "--beside is empty");
              args->beside = value;
            });
  add_repeats(verb, args->options);
  add_common(verb, args->common);
  verb.run = [args, kind] { return run_attention(*args, kind); };
}

void declare_backward(Command& verb) {
  auto args = std::make_shared<BackwardArgs>();
  add_problem(verb, args, "all");
  add_repeats(verb, args->options);
  add_dtype(verb, "--dtype", args->dtype, "Type of all arrays: f32, f16 or bf16; default: f32");
  add_common(verb, args->common);
  verb.run = [args] { return run_backward(*args); };
}

void declare_model(Command& verb) {
  auto args = std::make_shared<ModelArgs>();
  add_model(verb, args->model);
  add_number(verb, "--prompt-tokens", args->bench.prompt_tokens, 1, most_tokens,
             "Tokens of each prompt; default: 512, or what the context holds");
  add_number(verb, "--new-tokens", args->bench.new_tokens, 1, most_tokens,
             "Tokens that each sequence decodes; default: 64");
  add_number(verb, "--batch", args->bench.batch, 1, most_heads,
             "Sequences that decode together; default: 1");
  add_kv_dtype(verb, args->bench.kv_dtype);
  add_weight_dtype(verb, args->weight_dtype);
  add_number(verb, "--repeats", args->options.repeats, 1, most_repeats,
             "How often all of it is timed; default: 3");
  add_common(verb, args->common);
  verb.run = [args] { return run_model(*args); };
}

}  // namespace

void declare_bench(Command& verb) {
  verb.commands_title = "What is measured";
  const auto add = [&](const char* name, const char* summary, void (*declare)(Command&)) {
    declare(verb.commands.emplace_back(Command{.name = name, .summary = summary}));
  };
  add("decode", "One call of attention: a query token against a long cache", declare_attention);
  add("prefill", "One call of attention: all tokens of a prompt, causal", declare_attention);
  add("backward", "One call of attention's backward: all tokens, causal", declare_backward);
  add("model", "A model that reads a prompt and decodes", declare_model);
  add("recall", "What attention finds in long contexts, not how fast", declare_recall);
  verb.run = []() -> int {
    throw Error(ErrorKind::usage,
                "what to measure is missing: decode, prefill, backward, model or recall");
  };
}

}  // namespace gqa::cli
