#include <fmt/format.h>

#include <memory>

#include "cli/args.h"
#include "cli/format.h"
#include "cli/progress_bar.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "gqa/error.h"
#include "gqa/inspect.h"

namespace gqa::cli {
namespace {

struct VerifyArgs {
  Common common;
  std::string model;
};

int run_verify(const VerifyArgs& args) {
  ProgressBar bar(args.common);
  const Verification found = verify(args.model, bar.callback());
  bar.erase();
  const bool ok = found.problems.empty();
  if (args.common.json) {
    print_json({{"checks", found.checks}, {"problems", found.problems}, {"ok", ok}});
  } else {
    std::string lines;
    for (const std::string& check : found.checks) lines += fmt::format("ok       {}\n", check);
    for (const std::string& problem : found.problems)
      lines += fmt::format("PROBLEM  {}\n", problem);
    print(lines);
  }
  if (ok) return 0;
  throw Error(ErrorKind::bad_data,
              fmt::format("{}: {}: {}", args.model,
                          counted(static_cast<int64_t>(found.problems.size()), "problem"),
                          found.problems.front()));
}

}  // namespace

void declare_verify(Command& verb) {
  auto args = std::make_shared<VerifyArgs>();
  add_model(verb, args->model);
  add_common(verb, args->common);
  verb.run = [args] { return run_verify(*args); };
}

}  // namespace gqa::cli
