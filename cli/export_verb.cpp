#include "cli/export_verb.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "cli/format.h"
#include "cli/progress_bar.h"
#include "cli/terminal.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

/// Of each key and value.
bool has_fewer_numbers(const ConvertPlan& plan) {
  return plan.result.head_dim < plan.source.head_dim;
}

Json as_json(const LayerGrouping& layer) {
  Json tried = Json::array();
  for (const GroupingTrial& one : layer.tried) {
    tried.push_back({{"grouping", one.grouping}, {"groups", one.groups}, {"error", one.error}});
  }
  return {{"layer", layer.layer}, {"chosen", layer.chosen}, {"tried", tried}};
}

std::string as_text(const LayerGrouping& layer) {
  std::vector<std::string> errors;
  for (const GroupingTrial& one : layer.tried) {
    errors.push_back(fmt::format("{} {:.4f}", one.grouping, one.error));
  }
  return fmt::format("layer {}: groups of `{}`; error, held out: {}", layer.layer, layer.chosen,
                     fmt::join(errors, ", "));
}

Json as_json(const ExportArgs& args, const ConvertPlan& plan) {
  Json object{{"model", args.model},
              {"out", args.out},
              {"dry_run", args.dry_run},
              {"q_heads", plan.source.q_heads},
              {"source_kv_heads", plan.source.kv_heads},
              {"result_kv_heads", plan.result.kv_heads},
              {"source_kv_bytes_per_token", plan.source_kv_bytes_per_token},
              {"result_kv_bytes_per_token", plan.result_kv_bytes_per_token},
              {"output_bytes", plan.output_bytes},
              {"peak_memory_bytes", plan.peak_memory_bytes},
              {"notes", plan.notes}};
  if (!plan.groups.empty()) object["groups"] = plan.groups;
  if (plan.seconds) object["estimated_seconds"] = *plan.seconds;
  if (plan.budget) object["budget"] = *plan.budget;
  if (!plan.learned.empty()) {
    Json& layers = object["learned"] = Json::array();
    for (const LayerGrouping& layer : plan.learned) layers.push_back(as_json(layer));
  }
  if (has_fewer_numbers(plan)) {
    object["source_head_dim"] = plan.source.head_dim;
    object["result_head_dim"] = plan.result.head_dim;
    if (!plan.planes.empty()) object["planes"] = plan.planes;
  }
  return object;
}

std::string change(const std::string& before, const std::string& after) {
  return fmt::format("{} -> {}", before, after);
}

std::string heads_change(const ConvertPlan& plan) {
  return change(range_text(plan.source.kv_heads), range_text(plan.result.kv_heads));
}

std::string rank_change(const ConvertPlan& plan) {
  return change(std::to_string(plan.source.head_dim), std::to_string(plan.result.head_dim));
}

/// One line where all layers have the same groups, else a line per layer.
void add_groups(Fields& fields, const ConvertPlan& plan) {
  const auto text = [](const std::vector<std::vector<int64_t>>& groups) {
    std::vector<std::string> parts;
    parts.reserve(groups.size());
    for (const auto& group : groups) parts.push_back(fmt::format("{{{}}}", fmt::join(group, ",")));
    return fmt::format("{}", fmt::join(parts, " "));
  };
  bool same = true;
  for (const auto& layer : plan.groups) same = same && layer == plan.groups.front();
  for (size_t i = 0; i < plan.groups.size(); ++i) {
    fields.add(same ? "groups" : fmt::format("groups, layer {}", i), text(plan.groups[i]));
    if (same) break;
  }
}

std::string as_text(const ExportArgs& args, const ConvertPlan& plan) {
  Fields fields;
  fields.add("from", args.model);
  fields.add("to", args.out);
  fields.add("query heads", std::to_string(plan.source.q_heads));
  fields.add("KV heads", heads_change(plan));
  if (has_fewer_numbers(plan)) fields.add("head size", rank_change(plan));
  if (!plan.planes.empty()) {
    fields.add("rotary planes", fmt::format("{}", fmt::join(plan.planes, " ")));
  }
  const std::vector<int64_t>& heads = plan.result.kv_heads;
  const bool same = std::ranges::count(heads, heads.front()) == std::ssize(heads);
  if (!same) fields.add("layer by layer", fmt::format("{}", fmt::join(heads, " ")));
  fields.add("KV cache per token", change(exact_bytes(plan.source_kv_bytes_per_token),
                                          exact_bytes(plan.result_kv_bytes_per_token)));
  add_groups(fields, plan);
  fields.add("output", exact_bytes(plan.output_bytes));
  fields.add("memory", "about " + human_bytes(plan.peak_memory_bytes));
  if (plan.seconds) fields.add("time", "about " + rough_seconds(*plan.seconds));
  for (const LayerGrouping& layer : plan.learned) fields.add("learned", as_text(layer));
  for (const std::string& line : plan.notes) fields.add("note", line);
  return fields.text();
}

void report_dry_run(const ExportArgs& args, const ConvertPlan& plan) {
  if (args.common.json) {
    print_json(as_json(args, plan));
  } else {
    print(as_text(args, plan));
  }
}

/// What it will take, before it is taken.
void announce(const ExportArgs& args, const ConvertPlan& plan) {
  for (const LayerGrouping& layer : plan.learned) note(args.common, as_text(layer));
  for (const std::string& line : plan.notes) note(args.common, line);
  note(args.common,
       fmt::format("{}: writing {}, with about {} of memory; KV cache per token {}", args.out,
                   human_bytes(plan.output_bytes), human_bytes(plan.peak_memory_bytes),
                   change(human_bytes(plan.source_kv_bytes_per_token),
                          human_bytes(plan.result_kv_bytes_per_token))));
}

Json as_json(const LayerRefinement& layer) {
  return {{"layer", layer.layer},          {"error_before", layer.before},
          {"error_after", layer.after},    {"steps", layer.steps},
          {"kept_after", layer.kept},      {"diverged", layer.diverged},
          {"taken_over", layer.taken_over}};
}

/// `seconds_left`: of all refining, where that is known.
std::string as_text(const LayerRefinement& layer, std::optional<double> seconds_left) {
  std::string suffix;
  if (layer.taken_over) {
    suffix = "; taken over from the run that was stopped";
  } else if (seconds_left && *seconds_left >= 1) {
    suffix = fmt::format("; about {} left", human_seconds(*seconds_left));
  }
  if (layer.diverged && layer.kept == 0) {
    return fmt::format(
        "warning: layer {}: refinement diverged after {} steps: the layer stays as it was merged{}",
        layer.layer, layer.steps, suffix);
  }
  return fmt::format("layer {}: error {:.4f} -> {:.4f}, held out ({} of {} steps){}", layer.layer,
                     layer.before, layer.after, layer.kept, layer.steps, suffix);
}

Json as_json(const ModelRefinement& model) {
  return {{"merged", model.merged}, {"refined", model.refined}, {"kept", model.kept}};
}

std::string as_text(const ModelRefinement& model) {
  const std::string divergences = fmt::format(
      "KL divergence from the original, held out: {:.4f} nats per token merged, {:.4f} refined",
      model.merged, model.refined);
  if (model.kept) return divergences;
  return fmt::format(
      "warning: {}: refining makes this model worse, and is given up; fewer steps (--refine) or "
      "more text (--calibrate-tokens) may not",
      divergences);
}

/// What refining told on the way.
struct Told {
  std::vector<LayerRefinement> layers;
  std::optional<ModelRefinement> model;
};

void report(const ExportArgs& args, const ConvertPlan& plan, const Told& refined) {
  if (args.common.json) {
    Json object = as_json(args, plan);
    if (!refined.layers.empty()) {
      Json& layers = object["refined"] = Json::array();
      for (const LayerRefinement& layer : refined.layers) layers.push_back(as_json(layer));
    }
    if (refined.model) object["held_out_divergence"] = as_json(*refined.model);
    print_json(object);
  } else {
    const std::string rank =
        has_fewer_numbers(plan) ? fmt::format(", head size {}", rank_change(plan)) : "";
    note(args.common, fmt::format("{}: done, KV heads {}{}", args.out, heads_change(plan), rank));
  }
}

/// What `work` returns. Where the same command can go on (--resume), a stop of one of these kinds
/// says so.
template <typename Work>
auto stoppable(bool goes_on, std::initializer_list<ErrorKind> kinds, const std::string& out,
               Work&& work) {
  try {
    return work();
  } catch (const Error& error) {
    const bool stopped = std::find(kinds.begin(), kinds.end(), error.kind()) != kinds.end();
    if (!goes_on || !stopped) throw;
    throw Error(ErrorKind::stopped,
                fmt::format("{}: stopped ({}); what is done is kept: the same command goes on", out,
                            error.what()));
  }
}

}  // namespace

void add_export_places(Command& verb, ExportArgs& args, ExportOptions& output) {
  add_model(verb, args.model);
  add_required(verb, "OUT", args.out, "DIR", "Folder to write");
  add_flag(verb, "--force", output.force,
           "Replace an existing model folder OUT; with --resume,\ndiscard what a run with "
           "other options kept");
  add_flag(verb, "--resume", output.resume,
           "Keep what is done if the work stops, and go on with\nwhat an earlier run kept");
  add_flag(verb, "--dry-run", args.dry_run, "Check and show what would be done; write nothing");
}

void add_export_format(Command& verb, ExportOptions& output) {
  add_dtype(verb, "--dtype", output.dtype,
            "Type of the weights: f32, f16 or bf16;\ndefault: each tensor keeps its own");
  add_value(verb, "--max-shard-size", "SIZE",
            "Largest weights file: 500MB, 1GiB or plain bytes; default: 5GB",
            [&output](const std::string& value) {
              output.max_shard_bytes = parse_bytes("--max-shard-size", value);
            });
}

int run_export(const ExportArgs& args, const ExportOptions& output, const Planner& planner) {
  ProgressBar bar(args.common);
  check_output_place(args.model, args.out, output);
  const bool goes_on = output.resume && !args.dry_run;
  Told refined;
  const Refined tell{[&](const LayerRefinement& layer) {
                       refined.layers.push_back(layer);
                       bar.erase();
                       note(args.common, as_text(layer, bar.seconds_left("refine")));
                     },
                     [&](const ModelRefinement& model) {
                       refined.model = model;
                       bar.erase();
                       note(args.common, as_text(model));
                     }};
  const Conversion conversion = stoppable(goes_on, {ErrorKind::interrupted}, args.out,
                                          [&] { return planner(bar.callback(), tell); });
  conversion.check(args.out);
  bar.erase();
  if (args.dry_run) {
    report_dry_run(args, conversion.plan());
    return 0;
  }
  announce(args, conversion.plan());
  stoppable(goes_on, {ErrorKind::interrupted, ErrorKind::io}, args.out,
            [&] { conversion.write(args.out, bar.callback()); });
  bar.erase();
  report(args, conversion.plan(), refined);
  return 0;
}

}  // namespace gqa::cli
