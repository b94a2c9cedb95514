#include "cli/bench_recall.h"

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cli/args.h"
#include "cli/attention_report.h"
#include "cli/format.h"
#include "cli/progress_bar.h"
#include "cli/terminal.h"
#include "gqa/recall.h"

namespace gqa::cli {
namespace {

constexpr int64_t most_heads = 1 << 16;
constexpr int64_t most_tokens = int64_t{1} << 30;

struct RecallArgs {
  Common common;
  RecallBench bench;
  std::optional<KvDType> kv_dtype;
};

void report(const Common& common, const RecallBench& b, const RecallResult& result,
            const Context& context) {
  if (common.json) {
    Json object{{"recall", result.recall},
                {"exact_recall", result.exact_recall},
                {"needle_mass", result.needle_mass},
                {"chance", result.chance}};
    object.update(shares_json(result.shares));
    object.update({{"kind", "recall"},
                   {"attention", attention_text(b.attention)},
                   {"q_heads", b.q_heads},
                   {"kv_heads", b.kv_heads},
                   {"head_dim", b.head_dim},
                   {"kv_len", b.kv_len},
                   {"kv_dtype", kv_dtype_name(b.kv_dtype)},
                   {"needles", b.needles},
                   {"queries", b.queries},
                   {"trials", b.trials},
                   {"seed", b.seed},
                   {"isa", context.isa()},
                   {"threads", context.threads()}});
    print_json(object);
    return;
  }
  const auto percent = [](double share) { return fmt::format("{:.2f} %", share * 100); };
  Fields fields;
  fields.add("recall", percent(result.recall));
  fields.add("exact attention's", percent(result.exact_recall));
  fields.add("chance", percent(result.chance));
  fields.add("needle's attention", fmt::format("{:.2f}, exactly", result.needle_mass));
  add_shares(fields, result.shares);
  print(fmt::format(
      "recall: attention {}, {} in {} keys, {} in each of {}, {}/{} heads of size {}, {}\n\n{}",
      attention_text(b.attention), counted(b.needles, "needle"), grouped(b.kv_len),
      counted(b.queries, "query token"), counted(b.trials, "context"), b.q_heads, b.kv_heads,
      b.head_dim, kv_dtype_name(b.kv_dtype), fields.text()));
}

int run_recall(const RecallArgs& args) {
  RecallBench bench = args.bench;
  bench.kv_dtype = args.kv_dtype.value_or(bench.kv_dtype);
  Context context(args.common.context());
  ProgressBar bar(args.common);
  const RecallResult result = bench_recall(context, bench, bar.callback());
  bar.erase();
  report(args.common, bench, result, context);
  return 0;
}

}  // namespace

void declare_recall(Command& verb) {
  auto args = std::make_shared<RecallArgs>();
  RecallBench& bench = args->bench;
  const auto add = [&](const char* name, int64_t& value, int64_t high, const char* description) {
    add_number(verb, name, value, 1, high, fmt::format("{}; default: {}", description, value));
  };
  add_attention(verb, bench.attention);
  add("--needles", bench.needles, most_tokens, "Hidden for each KV head");
  add("--queries", bench.queries, most_tokens, "Query tokens, the last of a context");
  add("--trials", bench.trials, most_tokens, "Contexts");
  add("--q-heads", bench.q_heads, most_heads, "Query heads");
  add("--kv-heads", bench.kv_heads, most_heads, "KV heads, a divisor of the query heads");
  add("--head-dim", bench.head_dim, most_heads, "Size of a head, at least 16");
  add("--kv-len", bench.kv_len, most_tokens, "Keys, the queries' own among them");
  add_kv_dtype(verb, args->kv_dtype, "f16");
  add_value(verb, "--seed", "S", "Of all that is random; default: 0",
            [args](const std::string& value) { args->bench.seed = parse_seed("--seed", value); });
  add_common(verb, args->common);
  verb.run = [args] { return run_recall(*args); };
}

}  // namespace gqa::cli
