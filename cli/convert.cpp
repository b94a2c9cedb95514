#include "gqa/convert.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/export_verb.h"
#include "cli/methods.h"
#include "cli/verbs.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

struct ConvertArgs : ExportArgs {
  ConvertOptions options;
  Calibration calibration;  ///< used where `calibrate` says with what
  std::string calibrate;    ///< a file, `self`, or nothing
  bool calibration_set = false;
  std::string recipe;
};

constexpr const char* own_text = "self";

std::optional<Calibration> calibration(const ConvertArgs& args) {
  if (args.calibrate.empty()) {
    if (args.calibration_set) {
      throw Error(ErrorKind::usage,
                  "--calibrate TEXT (or self) is missing: --calibrate-tokens, --sampled-tokens and "
                  "--refine say how it is used");
    }
    return std::nullopt;
  }
  Calibration result = args.calibration;
  result.isa = args.common.isa;
  if (args.calibrate != own_text) result.text = args.calibrate;
  return result;
}

/// The folder that a path lies in.
std::filesystem::path folder_beside(const std::filesystem::path& path) {
  return (std::filesystem::absolute(path) / "").lexically_normal().parent_path().parent_path();
}

int run_convert(const ConvertArgs& args) {
  ConvertOptions options = args.options;
  if (!args.recipe.empty()) {
    options = read_recipe(args.recipe, args.model, args.calibrate);
    if (options.calibration) options.calibration->isa = args.common.isa;
    options.output.force = args.options.output.force;
    options.output.resume = args.options.output.resume;
  } else if (options.kv_heads == 0 && !options.kv_rank && !options.budget &&
             !options.grouping.starts_with("manual:")) {
    throw Error(ErrorKind::usage,
                "--kv-heads N is missing (or --kv-rank R, --budget RATIO, --recipe FILE, or "
                "--grouping manual:FILE)");
  } else {
    options.calibration = calibration(args);
  }
  options.output.threads = args.common.threads;
  options.output.dry_run = args.dry_run;
  return run_export(args, options.output, [&](const Progress& progress, const Refined& refined) {
    if (options.calibration) {
      options.calibration->refined = refined.layer;
      options.calibration->compared = refined.model;
      options.calibration->scratch = folder_beside(args.out);
    }
    return plan_convert(args.model, options, progress);
  });
}

void add_method(Command& verb, ConvertOptions& options) {
  add_value(verb, "--kv-heads", "N",
            "KV heads of the result, a divisor of the model's;\nwith manual:FILE by default as "
            "many as it has groups",
            [&options](const std::string& value) {
              options.kv_heads = parse_integer("--kv-heads", value, 1, INT64_MAX);
            });
  add_value(
      verb, "--budget", "RATIO",
      "In place of --kv-heads: the share of the model's KV bytes\nper token (above 0, at "
      "most 1) that goes to the layers\nwhich need it most",
      [&options](const std::string& value) { options.budget = parse_ratio("--budget", value); })
      .excludes = {"--kv-heads", "--kv-rank"};
  add_value(verb, "--kv-rank", "R",
            "Numbers per key and per value that the cache stores, even\nand below the head size; "
            "without --kv-heads all heads stay",
            [&options](const std::string& value) {
              options.kv_rank = parse_integer("--kv-rank", value, 1, INT64_MAX);
            });
  Option& grouping =
      add_value(verb, "--grouping", "HOW",
                "Which KV heads become one: neighbour, random, similarity,\nkmeans, key-driven, "
                "learned (with --calibrate) or\nmanual:FILE; default: similarity",
                [&options](const std::string& value) { options.grouping = value; });
  grouping.forms = groupings;
  grouping.forms.emplace_back("manual:FILE");
  add_flag(verb, "--unequal", options.unequal, "Let groups be of different sizes");
  add_value(verb, "--merge", "HOW",
            "How they become one: mean, first, random, medoid,\naligned or pca; default: pca",
            [&options](const std::string& value) { options.merge = value; })
      .forms = merges;
  add_value(verb, "--seed", "S", "Seed of what is random; default: 0",
            [&options](const std::string& value) { options.seed = parse_seed("--seed", value); });
}

void add_calibration(Command& verb, ConvertArgs& args) {
  const auto add_count = [&](const char* name, const char* what, const char* help, int64_t low,
                             auto set) {
    add_value(verb, name, what, help, [&args, name, low, set](const std::string& value) {
      set(args.calibration, parse_integer(name, value, low, 1'000'000'000));
      args.calibration_set = true;
    });
  };
  Option& calibrate =
      add_value(verb, "--calibrate", "TEXT",
                "Text file to learn from, or `self`: only what the model\nitself writes; default: "
                "weights alone",
                [&args](const std::string& value) { args.calibrate = value; });
  calibrate.forms = {own_text};
  calibrate.paths = Paths::files;
  add_count("--calibrate-tokens", "N", "Tokens taken from TEXT; default: 32768", 1,
            [](Calibration& c, int64_t n) { c.tokens = n; });
  add_count("--sampled-tokens", "N",
            "Tokens that the model itself writes, besides;\ndefault: as many as "
            "--calibrate-tokens",
            0, [](Calibration& c, int64_t n) { c.sampled_tokens = n; });
  add_count("--refine", "STEPS",
            "Gradient steps in which each layer is fitted to what the\noriginal's puts out, once "
            "merged; default: 600",
            0, [](Calibration& c, int64_t n) { c.steps = static_cast<int>(n); });
}

/// A recipe stands for all options declared so far, but for these: a text is not part of it, and
/// places are the user's.
void add_recipe(Command& verb, std::string& recipe) {
  const std::set<std::string> beside{"MODEL",    "OUT",       "--force",
                                     "--resume", "--dry-run", "--calibrate"};
  std::vector<std::string> replaced;
  for (const Option& option : verb.options) {
    if (!beside.contains(option.name)) replaced.push_back(option.name);
  }
  add_value(verb, "--recipe", "FILE",
            "All of the above but --force, --resume and --dry-run from the\ngqa_recipe.json of an "
            "earlier result",
            [&recipe](const std::string& value) { recipe = value; })
      .excludes = replaced;
}

}  // namespace

void declare_convert(Command& verb) {
  auto args = std::make_shared<ConvertArgs>();
  add_export_places(verb, *args, args->options.output);
  add_method(verb, args->options);
  add_calibration(verb, *args);
  add_export_format(verb, args->options.output);
  add_recipe(verb, args->recipe);
  add_common(verb, args->common);
  verb.run = [args] { return run_convert(*args); };
}

}  // namespace gqa::cli
