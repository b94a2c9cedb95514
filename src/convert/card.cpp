#include "convert/card.h"

#include <algorithm>
#include <string_view>

#include "convert/calibrator.h"
#include "convert/merge.h"
#include "convert/modelling_code.h"
#include "convert/recipe.h"
#include "core/fail.h"
#include "core/text.h"
#include "io/json_value.h"
#include "io/key_directions.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

std::string read_readme(const fs::path& readme) {
  try {
    return read_text(readme);
  } catch (const Error& error) {
    // Nothing but the licence is wanted of it: one that is not there or not UTF-8 is no reason to
    // stop.
    if (error.kind() == ErrorKind::no_input || error.kind() == ErrorKind::bad_data) return {};
    throw;
  }
}

/// Takes the first line off, without its end.
std::string_view next_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

/// The value of all layers, or "[8, 4, 2]" where they differ.
template <typename T>
std::string layers_text(const std::vector<T>& layers) {
  const bool same = std::ranges::count(layers, layers[0]) == std::ssize(layers);
  return same ? fmt::format("{}", layers[0]) : shape_text(layers);
}

/// Query heads of each KV head: "4", "[3, 5]", or a value per layer.
std::string sizes_text(const ModelConfig& config) {
  std::vector<std::string> layers;
  for (int64_t l = 0; l < config.n_layers; ++l)
    layers.push_back(layers_text(config.sizes_of_groups(l)));
  return layers_text(layers);
}

/// The options that both verbs have, as flags.
std::string output_flags(const ExportOptions& output) {
  std::string flags;
  if (output.dtype) flags += fmt::format(" --dtype {}", dtype_name(*output.dtype));
  if (output.max_shard_bytes != ExportOptions{}.max_shard_bytes) {
    flags += fmt::format(" --max-shard-size {}", output.max_shard_bytes);
  }
  return flags;
}

/// A word of a shell command.
std::string quoted(const std::string& word) {
  const std::string_view safe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:+@%/=";
  if (!word.empty() && word.find_first_not_of(safe) == word.npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

bool is_manual(const ExportJob& job) { return job.options.grouping.starts_with("manual"); }

std::string command(const ExportJob& job) {
  const ConvertOptions& o = job.options;
  std::string text = fmt::format("gqa {} {} OUT", job.verb, quoted(job.source.name));
  if (is_manual(job)) return text + fmt::format(" --recipe {}", recipe_name);
  if (job.verb == "convert") {
    if (o.budget) text += fmt::format(" --budget {}", *o.budget);
    if (o.kv_heads > 0) text += fmt::format(" --kv-heads {}", o.kv_heads);
    if (o.kv_rank) text += fmt::format(" --kv-rank {}", *o.kv_rank);
    text += fmt::format(" --grouping {} --merge {} --seed {}", o.grouping, o.merge, o.seed);
    if (o.calibration) {
      const Calibration& c = *o.calibration;
      text += fmt::format(" --calibrate {} --calibrate-tokens {} --sampled-tokens {} --refine {}",
                          c.text.empty() ? "self" : "TEXT", c.tokens, c.sampled(), c.steps);
    }
  }
  return text + output_flags(o.output);
}

std::string front_matter(const ExportJob& job) {
  // A JSON string is a YAML string.
  return fmt::format(
      "---\n"
      "base_model: {}\n"
      "{}"
      "library_name: transformers\n"
      "pipeline_tag: text-generation\n"
      "tags:\n"
      "- gqa\n"
      "- grouped-query-attention\n"
      "{}"
      "---\n\n",
      Json(job.source.name).dump(), license_lines(job.source.dir / "README.md"),
      job.plan.result.is_uniform() ? "" : "- custom_code\n");
}

std::string table(const ExportJob& job) {
  const ConvertPlan& plan = job.plan;
  const auto row = [](std::string_view what, const auto& before, const auto& after) {
    return fmt::format("| {} | {} | {} |\n", what, before, after);
  };
  return row("", job.source.name, "this model") + row("---", "---", "---") +
         row("query heads", plan.source.q_heads, plan.result.q_heads) +
         row("KV heads", layers_text(plan.source.kv_heads), layers_text(plan.result.kv_heads)) +
         row("query heads of each KV head", sizes_text(plan.source), sizes_text(plan.result)) +
         row("head size", plan.source.head_dim, plan.result.head_dim) +
         row("KV bytes per token", plan.source_kv_bytes_per_token, plan.result_kv_bytes_per_token);
}

std::string calibration_row(const ConvertOptions& options) {
  if (!options.calibration) return {};
  const Calibration& c = *options.calibration;
  std::vector<std::string> parts;
  if (!c.text.empty()) {
    parts.push_back(fmt::format("{} tokens of a text (SHA-256 `{}`)", c.tokens, c.sha256));
  }
  if (c.sampled() > 0) {
    parts.push_back(fmt::format("{} tokens sampled from the original", c.sampled()));
  }
  return fmt::format("| calibration | {} |\n", fmt::join(parts, ", "));
}

std::string budget_row(const ConvertOptions& options) {
  if (!options.budget) return {};
  return fmt::format("| budget | {} of the KV heads, given to the layers that lose most |\n",
                     *options.budget);
}

std::string rank(const ConvertPlan& plan) {
  if (plan.planes.empty()) return {};
  return fmt::format(
      "Keys keep {} rotary planes ({}) of {}, values as many dimensions: RoPE's frequencies are "
      "those of the planes that are left, which `rope_scaling` of type `longrope` says. ",
      plan.planes.size(), fmt::join(plan.planes, ", "), plan.source.head_dim / 2);
}

std::string refinement(const ExportJob& job) {
  const ConvertOptions& options = job.options;
  if (!options.calibration || options.calibration->steps == 0) return {};
  if (job.calibrator->gave_up()) {
    return "Fitting layers to what the original's put out made the model worse on text that was "
           "held out, and was given up. ";
  }
  return fmt::format(
      "Then, layer by layer, queries, keys, values and outputs were fitted to what the original's "
      "layer puts out (Adam, up to {} steps a layer). ",
      options.calibration->steps);
}

std::string method(const ExportJob& job) {
  if (job.verb == "expand") {
    return "Each KV head was repeated for every query head that shares it: the model computes what "
           "the original computes, with a larger KV cache.\n";
  }
  const ConvertOptions& o = job.options;
  return fmt::format(
      "| option | value |\n| --- | --- |\n| grouping | {} |\n| merge | {} |\n| seed | {} |\n{}{}\n"
      "Each KV head of this model is {}. {}{}Query heads were reordered so that those that share a "
      "KV "
      "head are neighbours. `{}` has the groups of every layer and the SHA-256 of every file.\n",
      is_manual(job) ? "manual" : o.grouping, o.merge, o.seed, budget_row(o), calibration_row(o),
      find_merge(o.merge).summary, rank(job.plan), refinement(job), recipe_name);
}

std::string directions(const ExportJob& job) {
  if (job.key_directions.empty()) return {};
  return fmt::format(
      "`{}` has, for each KV head, the directions in which its keys lie on the calibration text, "
      "for low-rank attention (`gqa eval --attention lowrank:R,KEYS`).\n\n",
      key_directions_name);
}

std::string warning(const ExportJob& job) {
  const ConvertPlan& plan = job.plan;
  const bool same = plan.source.kv_heads == plan.result.kv_heads && plan.planes.empty();
  if (job.verb == "expand" || same) return {};
  return fmt::format(
      "**{} changes what the model computes, and its quality has not been measured "
      "here.** Measure it before use:\n\n"
      "```sh\ngqa eval OUT --text FILE --against {}\n```\n\n",
      plan.planes.empty() ? "Merging KV heads" : "Storing less of keys and values",
      quoted(job.source.name));
}

/// Who can run a model that no class of transformers' own can be.
std::string own_code(const ExportJob& job) {
  const ModelConfig& result = job.plan.result;
  return fmt::format(
      "This model has {}. transformers' own `{}` classes have no such models: it runs this one "
      "with the "
      "code in `{}`, once you have read and trust it, and refuses it without. `gqa expand` makes a "
      "multi-head model of it that needs no code.\n\n",
      result.has_unequal_groups() ? "groups of different sizes"
                                  : "layers with different numbers of KV heads",
      result.model_type, modelling_code_name);
}

std::string usage(const ExportJob& job) {
  const bool plain = job.plan.result.is_uniform();
  const char* no_tokenizer = "The source has no `tokenizer.json`, so this folder has none.\n\n";
  const auto& carried = job.source.carried;
  const bool has_tokenizer = std::ranges::find(carried, "tokenizer.json") != carried.end();
  const auto from_folder = [&](std::string_view what) {
    return fmt::format("{}.from_pretrained(\"path/to/this/folder\"{})\n", what,
                       plain ? "" : ", trust_remote_code=True");
  };
  return fmt::format(
      "## Use\n\n"
      "{}"
      "```python\n"
      "from transformers import AutoModelForCausalLM{}\n\n"
      "{}"
      "{}"
      "```\n\n"
      "{}"
      "## Reproduce\n\n"
      "```sh\n{}\n```\n",
      plain ? "" : own_code(job), has_tokenizer ? ", AutoTokenizer" : "",
      from_folder("model = AutoModelForCausalLM"),
      has_tokenizer ? from_folder("tokenizer = AutoTokenizer") : "",
      has_tokenizer ? "" : no_tokenizer, command(job));
}

}  // namespace

std::string license_lines(const fs::path& readme) {
  const std::string content = read_readme(readme);
  std::string_view text = content;
  std::string lines;
  if (next_line(text) != "---") return {};
  bool in_license = false;
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    if (line == "---") return lines;
    // A value may go on in indented lines or list items.
    const bool goes_on = line.starts_with(' ') || line.starts_with('-');
    if (!goes_on) {
      in_license = line.starts_with("license:") || line.starts_with("license_name:") ||
                   line.starts_with("license_link:");
    }
    if (in_license) lines += fmt::format("{}\n", line);
  }
  return {};  // front matter that never ends is none
}

std::string model_card(const ExportJob& job) {
  const std::string title = job.verb == "expand"
                                ? fmt::format("{}, multi-head", job.source.name)
                                : fmt::format("{} with {} KV heads", job.source.name,
                                              layers_text(job.plan.result.kv_heads));
  return front_matter(job) + fmt::format("# {}\n\n", title) +
         fmt::format(
             "Made by `gqa {}` from `{}`: grouped-query attention, in which query heads "
             "share KV heads.\n\n",
             job.verb, job.source.name) +
         table(job) + "\n" + method(job) + "\n" + directions(job) + warning(job) + usage(job);
}

}  // namespace gqa
