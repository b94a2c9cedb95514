#include "cli/bench_report.h"

#include <fmt/format.h>

#include <vector>

#include "cli/attention_report.h"
#include "cli/format.h"
#include "cli/terminal.h"

namespace gqa::cli {
namespace {

/// Threads that run for a smaller share of the time than this did not have a core each.
constexpr double full_cpu = 0.9;

bool short_of_cores(double cpu_fraction) { return cpu_fraction < full_cpu; }

void note_shortage(const Common& common, double cpu_fraction, int threads) {
  if (!short_of_cores(cpu_fraction)) return;
  note(common, fmt::format("{} ran for {:.0f} % of the time only: other programs took the cores, "
                           "or there is too little work for so many threads",
                           counted(threads, "thread"), cpu_fraction * 100));
}

/// Times and arithmetic of any result.
template <typename Result>
Json arithmetic(const Result& result) {
  return {{"ms_median", result.ms.median},
          {"ms_min", result.ms.min},
          {"ms_max", result.ms.max},
          {"gflop_per_s", result.gflop_per_s.value},
          {"ceiling_gflop_per_s", result.gflop_per_s.ceiling},
          {"compute_fraction", result.gflop_per_s.fraction()}};
}

/// The same, and what is read.
template <typename Result>
Json figures(const Result& result) {
  Json object = arithmetic(result);
  object.update({{"kv_bytes", result.kv_bytes},
                 {"gb_per_s", result.gb_per_s.value},
                 {"ceiling_gb_per_s", result.gb_per_s.ceiling},
                 {"bandwidth_fraction", result.gb_per_s.fraction()}});
  return object;
}

/// Where and how it ran.
template <typename Result>
Json circumstances(const Result& result, const Context& context, const Machine& machine) {
  return {{"isa", context.isa()},
          {"threads", context.threads()},
          {"cpu_fraction", result.cpu_fraction},
          {"short_of_cores", short_of_cores(result.cpu_fraction)},
          {"repeats", result.repeats},
          {"machine", machine.cpu.empty() ? Json() : Json(machine.cpu)}};
}

template <typename Result>
std::string circumstances_text(const Result& result, const Context& context,
                               const Machine& machine) {
  return fmt::format("{}, {}, {}, {:.0f} % CPU time, {}",
                     machine.cpu.empty() ? "unknown machine" : machine.cpu,
                     counted(context.threads(), "thread"), context.isa(), result.cpu_fraction * 100,
                     counted(result.repeats, "repetition"));
}

std::vector<std::string> times_row(const char* what, const BenchTimes& ms) {
  const auto text = [](double value) { return fmt::format("{:.3f}", value); };
  return {what, text(ms.median), text(ms.min), text(ms.max)};
}

const char* gemm_label(DType gemm) {
  return gemm == DType::bf16 ? "GFLOP/s; ceiling: bf16 GEMM" : "GFLOP/s; ceiling: SGEMM";
}

std::vector<std::string> rate_row(const char* what, const BenchRate& rate) {
  const auto text = [](double value) { return fmt::format("{:.{}f}", value, value < 10 ? 2 : 1); };
  return {what, text(rate.value), text(rate.ceiling),
          fmt::format("{:.0f} %", rate.fraction() * 100)};
}

std::string times_text(std::vector<std::vector<std::string>> rows) {
  rows.insert(rows.begin(), {"milliseconds", "median", "min", "max"});
  return table_text(rows);
}

std::string rates_text(std::vector<std::vector<std::string>> rows) {
  rows.insert(rows.begin(), {"", "here", "ceiling", "share"});
  return table_text(rows);
}

/// What a call of attention, forward or backward, is about.
template <typename Bench>
Json problem_json(std::string_view kind, const Bench& b) {
  return {{"kind", kind},           {"q_heads", b.q_heads},       {"kv_heads", b.kv_heads},
          {"head_dim", b.head_dim}, {"v_head_dim", b.v_head_dim}, {"kv_len", b.kv_len},
          {"q_len", b.q_len},       {"window", b.window},         {"softcap", b.softcap},
          {"sinks", b.sinks}};
}

template <typename Bench>
std::string problem_text(std::string_view kind, const Bench& b, std::string_view dtype) {
  std::string text = fmt::format("{}: {} against {}, {}/{} heads of size {}", kind,
                                 counted(b.q_len, "query token"), counted(b.kv_len, "key"),
                                 b.q_heads, b.kv_heads, b.head_dim);
  if (b.v_head_dim != b.head_dim) text += fmt::format(", values {}", b.v_head_dim);
  text += fmt::format(", {}", dtype);
  if (b.window > 0) text += fmt::format(", window {}", b.window);
  if (b.softcap > 0) text += fmt::format(", soft cap {}", b.softcap);
  if (b.sinks) text += ", sinks";
  return text;
}

std::string attention_title(std::string_view kind, const AttentionBench& b) {
  std::string text = problem_text(kind, b, kv_dtype_name(b.kv_dtype));
  if (!std::holds_alternative<ExactAttention>(b.attention)) {
    text += fmt::format(", attention {}", attention_text(b.attention));
  }
  return text;
}

/// An approximation beside exact attention.
Json approximation_json(const ApproxBenchResult& result) {
  Json object{{"exact_ms_median", result.exact_ms.median}, {"exact_ms_min", result.exact_ms.min},
              {"exact_ms_max", result.exact_ms.max},       {"speedup", result.speedup},
              {"select_share", result.shares.select},      {"output_error", result.output_error}};
  object.update(shares_json(result.shares));
  return object;
}

std::string approximation_text(const ApproxBenchResult& result) {
  Fields fields;
  fields.add("speed-up", fmt::format("{:.2f}", result.speedup));
  add_shares(fields, result.shares);
  fields.add("choosing", fmt::format("{:.1f} % of the time", result.shares.select * 100));
  fields.add("output error", fmt::format("{:.3g} of the output", result.output_error));
  return fields.text();
}

/// What makes figures doubtful.
void note_doubts(const Common& common, int64_t rotate_bytes, const AttentionBenchResult& result,
                 const Context& context) {
  if (result.rotated_bytes <= rotate_bytes) {
    note(common, fmt::format("memory has room for {} of caches only, and they should exceed {}: "
                             "what is read may lie in the last-level cache",
                             human_bytes(result.rotated_bytes), human_bytes(rotate_bytes)));
  }
  note_shortage(common, result.cpu_fraction, context.threads());
}

Json attention_json(std::string_view kind, const AttentionBench& b,
                    const AttentionBenchResult& result, const Context& context,
                    const Machine& machine) {
  Json object = figures(result);
  object.update(circumstances(result, context, machine));
  object.update(problem_json(kind, b));
  object.update({{"kv_dtype", kv_dtype_name(b.kv_dtype)},
                 {"attention", attention_text(b.attention)},
                 {"caches", result.caches},
                 {"rotated_bytes", result.rotated_bytes},
                 {"gemm", dtype_name(result.gemm)},
                 {"peak_gflop_per_s", result.peak_gflop_per_s}});
  if (result.approximation) object.update(approximation_json(*result.approximation));
  return object;
}

/// What ran, where and on which caches, and what came of it.
std::string figures_text(std::string_view kind, const AttentionBench& b,
                         const AttentionBenchResult& result, const Context& context,
                         const Machine& machine) {
  std::vector<std::vector<std::string>> times{times_row("attend()", result.ms)};
  std::string beside;
  if (result.approximation) {
    times = {times_row("approximation", result.ms),
             times_row("exact", result.approximation->exact_ms)};
    beside = approximation_text(*result.approximation) + "\n";
  }
  return fmt::format("{}\n{}, {} ({} in all) in turns\n\n{}{}\n{}", attention_title(kind, b),
                     circumstances_text(result, context, machine), counted(result.caches, "cache"),
                     human_bytes(result.rotated_bytes), beside, times_text(times),
                     rates_text({rate_row("GB/s of keys and values", result.gb_per_s),
                                 rate_row(gemm_label(result.gemm), result.gflop_per_s),
                                 rate_row("GFLOP/s; ceiling: multiply-adds",
                                          {result.gflop_per_s.value, result.peak_gflop_per_s})}));
}

}  // namespace

void report_attention(const Common& common, std::string_view kind, const AttentionBench& b,
                      int64_t rotate_bytes, const AttentionBenchResult& result,
                      const Context& context, const Machine& machine) {
  note_doubts(common, rotate_bytes, result, context);
  if (common.json) return print_json(attention_json(kind, b, result, context, machine));
  print(figures_text(kind, b, result, context, machine));
}

void report_beside(const Common& common, std::string_view kind, const AttentionBench& b,
                   const AttentionBench& other, int64_t rotate_bytes,
                   const BesideBenchResult& result, const Context& context,
                   const Machine& machine) {
  note_doubts(common, rotate_bytes, result.one, context);
  note_doubts(common, rotate_bytes, result.other, context);
  if (common.json) {
    Json object = attention_json(kind, b, result.one, context, machine);
    object["beside"] = attention_json(kind, other, result.other, context, machine);
    object["beside_times"] = result.times;
    return print_json(object);
  }
  print(fmt::format(
      "{}\n{}\nThe second takes {:.3f} times as long as the first, call by call in turns.\n",
      figures_text(kind, b, result.one, context, machine),
      figures_text(kind, other, result.other, context, machine), result.times));
}

void report_backward(const Common& common, const BackwardBench& b,
                     const BackwardBenchResult& result, const Context& context,
                     const Machine& machine) {
  note_shortage(common, result.cpu_fraction, context.threads());
  if (common.json) {
    Json object = arithmetic(result);
    object.update(circumstances(result, context, machine));
    object.update(problem_json("backward", b));
    object.update({{"dtype", dtype_name(b.dtype)},
                   {"forward_ms_median", result.forward_ms.median},
                   {"forward_ms_min", result.forward_ms.min},
                   {"forward_ms_max", result.forward_ms.max},
                   {"gemm", dtype_name(result.gemm)},
                   {"peak_gflop_per_s", result.peak_gflop_per_s}});
    print_json(object);
    return;
  }
  print(fmt::format("{}\n{}\n\n{}\n{}", problem_text("backward", b, dtype_name(b.dtype)),
                    circumstances_text(result, context, machine),
                    times_text({times_row("attend_backward()", result.ms),
                                times_row("attend()", result.forward_ms)}),
                    rates_text({rate_row(gemm_label(result.gemm), result.gflop_per_s),
                                rate_row("GFLOP/s; ceiling: multiply-adds",
                                         {result.gflop_per_s.value, result.peak_gflop_per_s})})));
}

void report_model(const Common& common, const std::string& model, WeightDType weight_dtype,
                  const ModelBench& b, const ModelBenchResult& result, const Context& context,
                  const Machine& machine) {
  note_shortage(common, result.cpu_fraction, context.threads());
  if (common.json) {
    Json object{{"prefill_tokens_per_s", result.prefill_tokens_per_s},
                {"decode_tokens_per_s", result.decode_tokens_per_s},
                {"prefill_ms_median", result.prefill_ms.median},
                {"prefill_ms_min", result.prefill_ms.min},
                {"prefill_ms_max", result.prefill_ms.max},
                {"weight_bytes", result.weight_bytes}};
    object.update(figures(result));
    object.update(circumstances(result, context, machine));
    object.update({{"kind", "model"},
                   {"model", model},
                   {"prompt_tokens", result.prompt_tokens},
                   {"new_tokens", b.new_tokens},
                   {"batch", b.batch},
                   {"weight_dtype", weight_dtype_name(weight_dtype)},
                   {"kv_dtype", kv_dtype_name(result.kv_dtype)}});
    print_json(object);
    return;
  }
  Fields fields;
  fields.add("prefill", fmt::format("{:.0f} tokens/s", result.prefill_tokens_per_s));
  fields.add("decode", fmt::format("{:.0f} tokens/s", result.decode_tokens_per_s));
  fields.add("a step reads",
             fmt::format("{} of weights, {} of keys and values", human_bytes(result.weight_bytes),
                         human_bytes(result.kv_bytes)));
  print(fmt::format(
      "model: {}, {} of {} and {}, {} weights, {} cache\n{}\n\n{}\n{}\n{}", model,
      counted(b.batch, "sequence"), counted(result.prompt_tokens, "prompt token"),
      counted(b.new_tokens, "new one"), weight_dtype_name(weight_dtype),
      kv_dtype_name(result.kv_dtype), circumstances_text(result, context, machine), fields.text(),
      times_text({times_row("prefill", result.prefill_ms), times_row("decoding step", result.ms)}),
      rates_text({rate_row("GB/s, decoding", result.gb_per_s),
                  rate_row("GFLOP/s, prefill", result.gflop_per_s)})));
}

}  // namespace gqa::cli
