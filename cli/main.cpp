// The program: finds the verb, runs it, turns what it throws into a message and an exit code.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <exception>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

constexpr int internal_error = 70;

struct Verb {
  const char* name;
  const char* summary;
  Run (*declare)(CLI::App&);
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

/// "gqa eval", "gqa bench decode": what the user was typing.
std::string command_name(const CLI::App& app) {
  std::string name = "gqa";
  for (auto chosen = app.get_subcommands(); !chosen.empty();
       chosen = chosen.front()->get_subcommands()) {
    name += " " + chosen.front()->get_name();
  }
  return name;
}

int fail_usage(const CLI::App& app, const std::string& message) {
  report_error(fmt::format("{} (see {} --help)", message, command_name(app)));
  return static_cast<int>(ErrorKind::usage);
}

void print_help(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  std::string text = chosen.empty() ? app.help() : chosen.front()->help("gqa");
  for (size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
  while (text.ends_with("\n\n")) text.pop_back();
  print(text);
}

std::string unexpected(const CLI::App& app) {
  const std::string argument = app.remaining(true).front();
  const bool verb = app.get_subcommands().empty() && !argument.starts_with('-');
  return fmt::format("{} '{}'", verb ? "unknown verb" : "unexpected argument", argument);
}

/// The arguments, last one first as CLI11 wants them. "--name=" becomes "--name" and an empty
/// value: CLI11 would take the next argument for the value.
std::vector<std::string> arguments(int argc, char** argv) {
  std::vector<std::string> result;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    const bool empty_value =
        argument.starts_with("--") && argument.find('=') == argument.size() - 1;
    if (empty_value) argument.pop_back();
    result.push_back(argument);
    if (empty_value) result.emplace_back();
  }
  std::reverse(result.begin(), result.end());
  return result;
}

std::map<const CLI::App*, Run> declare_all(CLI::App& app) {
  app.set_version_flag("--version", "gqa " GQA_VERSION, "Print the version");
  app.set_help_flag("--help,-h", "Print this help");
  app.get_formatter()->column_width(30);
  app.get_formatter()->label("SUBCOMMAND", "VERB");
  app.get_formatter()->label("Positionals", "Arguments");
  app.get_formatter()->label("Usage", "\nUsage");
  app.require_subcommand(0, 1);
  std::map<const CLI::App*, Run> runs;
  for (const Verb& verb : verbs) {
    CLI::App* sub = app.add_subcommand(verb.name, verb.summary)->group("Verbs");
    runs[sub] = verb.declare(*sub);
  }
  app.footer("`gqa VERB --help` lists what a verb takes.");
  return runs;
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Grouped-query attention: convert, run and measure models", "gqa");
  const auto runs = declare_all(app);
  try {
    app.parse(arguments(argc, argv));
    if (app.get_subcommands().empty()) return fail_usage(app, "a verb is missing");
    return runs.at(app.get_subcommands().front())();
  } catch (const CLI::CallForHelp&) {
    print_help(app);
    return 0;
  } catch (const CLI::CallForVersion& version) {
    print(fmt::format("{}\n", version.what()));
    return 0;
  } catch (const CLI::ExtrasError&) {
    return fail_usage(app, unexpected(app));
  } catch (const CLI::ParseError& error) {
    return fail_usage(app, error.what());
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::usage) throw;
    return fail_usage(app, error.what());
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
