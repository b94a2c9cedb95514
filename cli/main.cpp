// The program: finds the verb, runs it, turns what it throws into a message and an exit code.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <new>
#include <string>

#include "cli/completion.h"
#include "cli/parse.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "gqa/error.h"
#include "gqa/version.h"

namespace gqa::cli {
namespace {

constexpr int internal_error = 70;

struct Verb {
  const char* name;
  const char* summary;
  void (*declare)(Command&);
};
constexpr std::array<Verb, 10> verbs{{
    {"inspect", "Show a model's heads, KV bytes per token and head similarity", declare_inspect},
    {"convert", "Make a grouped-query checkpoint with fewer KV heads", declare_convert},
    {"expand", "Make a multi-head checkpoint of a grouped-query one, exactly", declare_expand},
    {"export", "Write a model as a GGUF file for llama.cpp", declare_export},
    {"eval", "Measure how well a model predicts a text", declare_eval},
    {"generate", "Continue a prompt, or many together", declare_generate},
    {"bench", "Time attention or a model beside this machine's ceilings", declare_bench},
    {"tune", "Find the conversions of a model that are worth their bytes", declare_tune},
    {"verify", "Check a model folder to the last byte", declare_verify},
    {"doctor", "Describe this machine and check attention on it", declare_doctor},
}};

void describe(Command& program) {
  program.name = "gqa";
  program.summary = "Grouped-query attention: convert, run and measure models";
  program.footer = "`gqa VERB --help` lists what a verb takes.";
  program.version = "gqa " GQA_VERSION;
  program.commands_title = "Verbs";
  for (const Verb& verb : verbs) {
    verb.declare(
        program.commands.emplace_back(Command{.name = verb.name, .summary = verb.summary}));
  }
  declare_completion(program.commands.emplace_back(Command{
                         .name = "completion", .summary = "Print what makes a shell complete gqa"}),
                     program);
  program.run = []() -> int { throw Error(ErrorKind::usage, "a verb is missing"); };
}

int fail_usage(const Request& request, const std::string& message) {
  report_error(fmt::format("{} (see {} --help)", message, request.name));
  return static_cast<int>(ErrorKind::usage);
}

int parse_and_run(int argc, char** argv) {
  Command program;
  describe(program);
  const Request request = parse(program, {argv + std::min(argc, 1), argv + argc});
  if (!request.problem.empty()) return fail_usage(request, request.problem);
  if (!request.text.empty()) {
    print(request.text);
    return 0;
  }
  try {
    return request.command->run();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::usage) throw;
    return fail_usage(request, error.what());
  }
}

int guarded_main(int argc, char** argv) {
  try {
    const int code = parse_and_run(argc, argv);
    close_output();
    return code;
  } catch (const BrokenPipe&) {
    return static_cast<int>(ErrorKind::io);
  } catch (const Error& error) {
    // A system call that the signal cut short fails like any other.
    const bool stopped = interrupted() && error.kind() == ErrorKind::io;
    report_error(stopped ? "interrupted" : error.what());
    return stopped ? static_cast<int>(ErrorKind::interrupted) : error.exit_code();
  } catch (const std::bad_alloc&) {
    report_error("out of memory");
    return static_cast<int>(ErrorKind::resources);
  } catch (const std::exception& error) {
    report_error(fmt::format("internal error: {}", error.what()));
    return internal_error;
  } catch (...) {
    report_error("internal error");
    return internal_error;
  }
}

}  // namespace
}  // namespace gqa::cli

int main(int argc, char** argv) {
  gqa::cli::open_standard_streams();
  gqa::cli::install_signal_handlers();
  return gqa::cli::guarded_main(argc, argv);
}
