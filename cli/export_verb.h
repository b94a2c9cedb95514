// What `convert` and `expand` share: they write a model folder.
#pragma once

#include <functional>
#include <string>

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
void add_export_places(Command& verb, ExportArgs& args, ExportOptions& output);
/// --dtype and --max-shard-size.
void add_export_format(Command& verb, ExportOptions& output);

/// Told how refining goes; as Calibration's of these names.
struct Refined {
  std::function<void(const LayerRefinement&)> layer;
  std::function<void(const ModelRefinement&)> model;
};
/// Plans a conversion, telling progress; whoever refines layers tells of them, too.
using Planner = std::function<Conversion(const Progress&, const Refined&)>;

/// Plans once, says what it will take, writes (unless it is a dry run) and reports: data (--json,
/// dry run) on standard output, else messages. Returns the exit code.
int run_export(const ExportArgs& args, const ExportOptions& output, const Planner& planner);

}  // namespace gqa::cli
