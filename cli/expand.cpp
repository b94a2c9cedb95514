#include <memory>

#include "cli/export_verb.h"
#include "cli/verbs.h"
#include "gqa/convert.h"

namespace gqa::cli {
namespace {

struct ExpandArgs : ExportArgs {
  ExportOptions output;
};

int run_expand(const ExpandArgs& args) {
  ExportOptions output = args.output;
  output.threads = args.common.threads;
  return run_export(args, output, [&](const Progress& progress, const Refined&) {
    return plan_expand(args.model, output, progress);
  });
}

}  // namespace

void declare_expand(Command& verb) {
  auto args = std::make_shared<ExpandArgs>();
  add_export_places(verb, *args, args->output);
  add_export_format(verb, args->output);
  add_common(verb, args->common);
  verb.run = [args] { return run_expand(*args); };
}

}  // namespace gqa::cli
