#include <memory>

#include "cli/export_verb.h"
#include "cli/progress_bar.h"
#include "cli/verbs.h"
#include "gqa/convert.h"

namespace gqa::cli {
namespace {

struct ExpandArgs : ExportArgs {
  ExportOptions output;
};

int run_expand(const ExpandArgs& args) {
  ProgressBar bar(args.common);
  const ConvertPlan plan = plan_expand(args.model, args.output);
  if (args.dry_run) {
    check_out(args, args.output.force);
  } else {
    expand(args.model, args.out, args.output, bar.callback());
  }
  bar.erase();
  report_plan(args, plan);
  return 0;
}

}  // namespace

Run declare_expand(CLI::App& verb) {
  auto args = std::make_shared<ExpandArgs>();
  add_export_places(verb, *args, args->output);
  add_export_format(verb, args->output);
  add_common(verb, args->common);
  return [args] { return run_expand(*args); };
}

}  // namespace gqa::cli
