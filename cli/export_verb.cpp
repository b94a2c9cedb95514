#include "cli/export_verb.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <system_error>

#include "cli/format.h"
#include "cli/terminal.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

namespace fs = std::filesystem;

Json as_json(const ExportArgs& args, const ConvertPlan& plan) {
  return {{"model", args.model},
          {"out", args.out},
          {"dry_run", args.dry_run},
          {"q_heads", plan.source.q_heads},
          {"source_kv_heads", plan.source.kv_heads},
          {"result_kv_heads", plan.result.kv_heads},
          {"source_kv_bytes_per_token", plan.source_kv_bytes_per_token},
          {"result_kv_bytes_per_token", plan.result_kv_bytes_per_token},
          {"output_bytes", plan.output_bytes},
          {"peak_memory_bytes", plan.peak_memory_bytes},
          {"groups", plan.groups},
          {"notes", plan.notes}};
}

std::string change(const std::string& before, const std::string& after) {
  return fmt::format("{} -> {}", before, after);
}

std::string heads_change(const ConvertPlan& plan) {
  return change(range_text(plan.source.kv_heads), range_text(plan.result.kv_heads));
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
  fields.add("KV cache per token", change(exact_bytes(plan.source_kv_bytes_per_token),
                                          exact_bytes(plan.result_kv_bytes_per_token)));
  add_groups(fields, plan);
  fields.add("output", exact_bytes(plan.output_bytes));
  fields.add("memory", "about " + human_bytes(plan.peak_memory_bytes));
  for (const std::string& line : plan.notes) fields.add("note", line);
  return fields.text();
}

}  // namespace

void add_export_places(CLI::App& verb, ExportArgs& args, ExportOptions& output) {
  add_model(verb, args.model);
  add_required(verb, "OUT", args.out, "DIR", "Folder to write");
  verb.add_flag("--force", output.force, "Replace an existing model folder OUT");
  verb.add_flag("--dry-run", args.dry_run, "Check and show what would be done; write nothing");
}

std::vector<CLI::Option*> add_export_format(CLI::App& verb, ExportOptions& output) {
  return {add_dtype(verb, "--dtype", output.dtype,
                    "Type of the weights: f32, f16 or bf16;\ndefault: each tensor keeps its own"),
          add_value(verb, "--max-shard-size", "SIZE",
                    "Largest weights file: 500MB, 1GiB or plain bytes; default: 5GB",
                    [&output](const std::string& value) {
                      output.max_shard_bytes = parse_bytes("--max-shard-size", value);
                    })};
}

void check_out(const ExportArgs& args, bool force) {
  const fs::path out = args.out;
  std::error_code error;
  const bool exists = fs::exists(fs::symlink_status(out, error));
  if (exists && !force) {
    throw Error(ErrorKind::cannot_create,
                fmt::format("{}: already exists; --force replaces a model folder", args.out));
  }
  if (exists && !fs::exists(out / "config.json", error)) {
    throw Error(ErrorKind::cannot_create,
                fmt::format("{}: exists and is not a model folder (no config.json)", args.out));
  }
  // "a/b/" and "b" have their parents too.
  const fs::path whole = fs::absolute(out).lexically_normal();
  const fs::path parent = (whole.has_filename() ? whole : whole.parent_path()).parent_path();
  if (!fs::is_directory(parent, error)) {
    throw Error(ErrorKind::cannot_create,
                fmt::format("{}: {} is not a folder", args.out, parent.string()));
  }
}

void report_plan(const ExportArgs& args, const ConvertPlan& plan) {
  if (args.common.json) {
    print_json(as_json(args, plan));
  } else if (args.dry_run) {
    print(as_text(args, plan));
  } else {
    for (const std::string& line : plan.notes) note(args.common, line);
    note(args.common, fmt::format("{}: KV heads {}, KV cache per token {}, weights {}", args.out,
                                  heads_change(plan),
                                  change(human_bytes(plan.source_kv_bytes_per_token),
                                         human_bytes(plan.result_kv_bytes_per_token)),
                                  human_bytes(plan.output_bytes)));
  }
}

}  // namespace gqa::cli
