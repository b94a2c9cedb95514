#include "gqa/tune.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "cli/args.h"
#include "cli/format.h"
#include "cli/methods.h"
#include "cli/progress_bar.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

struct TuneArgs {
  Common common;
  std::string model;
  std::string text;
  std::string plot;
  TuneOptions options;
};

/// "a,b": no part may be empty.
std::vector<std::string> parts_of(const std::string& option, const std::string& value) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= value.size();) {
    const size_t end = std::min(value.find(',', at), value.size());
    parts.push_back(value.substr(at, end - at));
    if (parts.back().empty()) {
      throw Error(ErrorKind::usage,
                  fmt::format("{}: expected a list as a,b,c, got '{}'", option, value));
    }
    at = end + 1;
  }
  return parts;
}

/// Ctrl-C keeps what is measured where there is a folder for it.
TuneResult tune_stoppable(const TuneArgs& args, const Progress& progress) {
  try {
    return tune(args.model, args.options, progress);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::interrupted || args.options.work.empty()) throw;
    throw Error(ErrorKind::stopped,
                fmt::format("{}: stopped ({}); what is measured is kept: the same command goes on",
                            args.options.work.string(), error.what()));
  }
}

Json as_json(const TuneArgs& args, const TuneResult& result) {
  Json points = Json::array();
  for (const TunePoint& p : result.points) {
    Json point{{"name", p.name}, {"kv_heads", p.layer_kv_heads}};
    if (p.budget) point["budget"] = *p.budget;
    if (!p.grouping.empty()) point["grouping"] = p.grouping;
    if (!p.merge.empty()) point["merge"] = p.merge;
    point["kv_bytes_per_token"] = p.kv_bytes_per_token;
    point["ppl"] = p.ppl;
    point["kl"] = p.kl;
    point["front"] = p.on_front;
    points.push_back(std::move(point));
  }
  return {{"model", args.model},
          {"text", args.text},
          {"calibration_bytes", result.calibration_bytes},
          {"judged_tokens", result.judged_tokens},
          {"reused", result.reused},
          {"points", std::move(points)}};
}

std::string as_text(const TuneResult& result) {
  std::vector<std::vector<std::string>> rows = {
      {"front", "candidate", "KV heads", "KV bytes/token", "share", "perplexity", "KL"}};
  const auto whole = static_cast<double>(result.points.front().kv_bytes_per_token);
  for (const TunePoint& p : result.points) {
    const auto& heads = p.layer_kv_heads;
    const bool same = std::ranges::count(heads, heads.front()) == std::ssize(heads);
    rows.push_back(
        {p.on_front ? "*" : "", p.name,
         same ? fmt::format("{}", heads.front()) : fmt::format("{}", fmt::join(heads, " ")),
         grouped(p.kv_bytes_per_token),
         fmt::format("{:.1f} %", 100 * static_cast<double>(p.kv_bytes_per_token) / whole),
         fmt::format("{:.4f}", p.ppl), fmt::format("{:.5f}", p.kl)});
  }
  return table_text(rows);
}

void check_plot_place(const std::string& file) {
  if (file.empty()) return;
  const auto parent = std::filesystem::absolute(file).parent_path();
  if (std::filesystem::is_directory(parent) && !std::filesystem::is_directory(file)) return;
  throw Error(ErrorKind::cannot_create, fmt::format("{}: can't be written there", file));
}

void write_plot(const TuneArgs& args, const TuneResult& result) {
  if (args.plot.empty()) return;
  std::ofstream file(args.plot, std::ios::binary);
  file << tune_svg(fmt::format("{}: perplexity against KV cache",
                               std::filesystem::path(args.model).filename().string()),
                   result);
  file.close();
  if (!file) throw Error(ErrorKind::io, fmt::format("{}: can't be written", args.plot));
}

int run_tune(TuneArgs& args) {
  args.options.text = args.text;
  args.options.threads = args.common.threads;
  args.options.isa = args.common.isa;
  check_plot_place(args.plot);
  ProgressBar bar(args.common);
  const TuneResult result = tune_stoppable(args, bar.callback());
  bar.erase();
  note(args.common,
       fmt::format("{}: the first {} bytes calibrate, the {} tokens behind them judge", args.text,
                   grouped(result.calibration_bytes), grouped(result.judged_tokens)));
  write_plot(args, result);
  if (args.common.json) {
    print_json(as_json(args, result));
  } else {
    print(as_text(result));
  }
  return 0;
}

void add_choices(Command& verb, TuneOptions& options) {
  add_value(verb, "--kv-heads", "LIST",
            "Numbers of KV heads to try, as 4,2; default, without\n--budget: all divisors",
            [&options](const std::string& value) {
              for (const auto& part : parts_of("--kv-heads", value)) {
                options.kv_heads.push_back(parse_integer("--kv-heads", part, 1, INT64_MAX));
              }
            });
  add_value(verb, "--budget", "LIST",
            "Budgets to try, see `gqa convert`; default, without\n--kv-heads: 0.75,0.5,0.375,0.25",
            [&options](const std::string& value) {
              for (const auto& part : parts_of("--budget", value)) {
                options.budgets.push_back(parse_ratio("--budget", part));
              }
            });
  const auto add_methods = [&verb](const std::string& name, const char* description,
                                   std::vector<std::string>& chosen,
                                   const std::vector<std::string>& all) {
    Option& option =
        add_value(verb, name, "LIST", description,
                  [&chosen, name](const std::string& value) { chosen = parts_of(name, value); });
    option.forms = all;
    option.lists_forms = true;
  };
  add_methods("--grouping", "Groupings to try; default: similarity", options.groupings, groupings);
  add_methods("--merge", "Merges to try; default: pca", options.merges, merges);
  add_value(
      verb, "--refine", "STEPS",
      "Steps in which each layer is fitted; 0: quick, since\nmost is seen without; default: 0",
      [&options](const std::string& value) {
        options.steps = static_cast<int>(parse_integer("--refine", value, 0, 1'000'000));
      });
  add_value(verb, "--calibrate-tokens", "N", "Tokens to calibrate with; default: 4096",
            [&options](const std::string& value) {
              options.calibration_tokens =
                  parse_integer("--calibrate-tokens", value, 1, 1'000'000'000);
            });
  add_value(verb, "--seed", "S", "Seed of what is random; default: 0",
            [&options](const std::string& value) { options.seed = parse_seed("--seed", value); });
}

}  // namespace

void declare_tune(Command& verb) {
  auto args = std::make_shared<TuneArgs>();
  add_model(verb, args->model);
  add_required(verb, "--text", args->text, "FILE",
               "Text, UTF-8: nine tenths calibrate, the last one judges");
  add_choices(verb, args->options);
  add_value(verb, "--work", "DIR",
            "Folder to write candidates to, and to keep results in,\nso that the same command goes "
            "on after a stop",
            [args](const std::string& value) { args->options.work = value; });
  add_flag(verb, "--keep", args->options.keep, "Leave the candidates in --work");
  add_value(verb, "--plot", "FILE", "Write a picture (SVG) of quality against bytes",
            [args](const std::string& value) { args->plot = value; });
  add_common(verb, args->common);
  verb.run = [args] { return run_tune(*args); };
}

}  // namespace gqa::cli
