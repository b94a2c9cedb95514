// What `convert` and `expand` share: they write a model folder.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/args.h"
#include "gqa/convert.h"

namespace gqa::cli {

struct ExportArgs {
  Common common;
  std::string model;
  std::string out;
  bool dry_run = false;
};

/// MODEL, OUT, --force and --dry-run.
void add_export_places(CLI::App& verb, ExportArgs& args, ExportOptions& output);
/// --dtype and --max-shard-size.
std::vector<CLI::Option*> add_export_format(CLI::App& verb, ExportOptions& output);

/// Throws Error (cannot_create) where a dry run can tell that OUT can't be written.
void check_out(const ExportArgs& args, bool force);

/// What the plan is (dry run) or what was done: with --json or for a dry run on standard output,
/// else a line among the messages.
void report_plan(const ExportArgs& args, const ConvertPlan& plan);

}  // namespace gqa::cli
