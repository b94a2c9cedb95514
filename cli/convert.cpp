#include "gqa/convert.h"

#include <memory>

#include "cli/export_verb.h"
#include "cli/verbs.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

struct ConvertArgs : ExportArgs {
  ConvertOptions options;
  std::string recipe;
};

int run_convert(const ConvertArgs& args) {
  ConvertOptions options = args.options;
  if (!args.recipe.empty()) {
    options = read_recipe(args.recipe, args.model);
    options.output.force = args.options.output.force;
    options.output.resume = args.options.output.resume;
  } else if (options.kv_heads == 0 && !options.grouping.starts_with("manual:")) {
    throw Error(ErrorKind::usage,
                "--kv-heads N is missing (or --recipe FILE, or --grouping manual:FILE)");
  }
  options.output.threads = args.common.threads;
  return run_export(args, options.output, [&](const Progress& progress) {
    return plan_convert(args.model, options, progress);
  });
}

/// The options that a recipe gives.
std::vector<CLI::Option*> add_method(CLI::App& verb, ConvertOptions& options) {
  return {
      add_value(verb, "--kv-heads", "N",
                "KV heads of the result, a divisor of the model's;\nwith manual:FILE by default as "
                "many as it has groups",
                [&options](const std::string& value) {
                  options.kv_heads = parse_integer("--kv-heads", value, 1, INT64_MAX);
                }),
      add_value(verb, "--grouping", "HOW",
                "Which KV heads become one: neighbour, random or manual:FILE;\ndefault: neighbour",
                [&options](const std::string& value) { options.grouping = value; }),
      verb.add_flag("--unequal", options.unequal, "Let groups of manual:FILE be of different sizes")
          ->option_text(" "),
      add_value(verb, "--merge", "HOW", "How they become one: mean, first or random; default: mean",
                [&options](const std::string& value) { options.merge = value; }),
      add_value(
          verb, "--seed", "S", "Seed of what is random; default: 0",
          [&options](const std::string& value) { options.seed = parse_seed("--seed", value); }),
  };
}

}  // namespace

Run declare_convert(CLI::App& verb) {
  auto args = std::make_shared<ConvertArgs>();
  add_export_places(verb, *args, args->options.output);
  auto by_recipe = add_method(verb, args->options);
  for (CLI::Option* option : add_export_format(verb, args->options.output)) {
    by_recipe.push_back(option);
  }
  CLI::Option* recipe = add_value(verb, "--recipe", "FILE",
                                  "All of the above but --force, --resume and --dry-run from "
                                  "the\ngqa_recipe.json of an earlier result",
                                  [args](const std::string& value) { args->recipe = value; });
  for (CLI::Option* option : by_recipe) recipe->excludes(option);
  add_common(verb, args->common);
  return [args] { return run_convert(*args); };
}

}  // namespace gqa::cli
