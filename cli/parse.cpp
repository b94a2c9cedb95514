#include "cli/parse.h"

#include <fmt/format.h>

// The one file that includes CLI11, which takes a compiler ten seconds.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <utility>

#include "gqa/error.h"

namespace gqa::cli {
namespace {

using Commands = std::map<const CLI::App*, const Command*>;

/// Help shows texts of ours after a name: CLI11's list every option that this one excludes.
std::string text_after_name(const Option& option) {
  if (option.flag != nullptr || option.positional()) return " ";
  return option.placeholder + (option.required ? " (required)" : "");
}

CLI::Option* add_option(CLI::App& app, const Option& option) {
  CLI::Option* added = nullptr;
  if (option.flag != nullptr) {
    added = app.add_flag(option.name, *option.flag, option.description);
  } else {
    // The raw callback: CLI11's own conversions would drop an empty value, and read 010 as octal.
    const CLI::callback_t callback = [&option](const CLI::results_t& values) {
      option.set(values.front());
      return true;
    };
    added = app.add_option(option.name, callback, option.description);
    added->type_name(option.placeholder)->expected(1);
  }
  return added->option_text(text_after_name(option))
      ->required(option.required)
      ->group(option.group);
}

void add_options(CLI::App& app, const Command& command) {
  std::map<std::string, CLI::Option*> added;
  for (const Option& option : command.options) added[option.name] = add_option(app, option);
  for (const Option& option : command.options) {
    for (const std::string& other : option.needs) added[option.name]->needs(added.at(other));
    for (const std::string& other : option.excludes) added[option.name]->excludes(added.at(other));
  }
}

void add_command(CLI::App& app, const Command& command, Commands& commands) {
  commands[&app] = &command;
  add_options(app, command);
  app.footer(command.footer);
  app.prefix_command(command.takes_anything);
  app.require_subcommand(0, 1);
  for (const Command& inner : command.commands) {
    CLI::App* added = app.add_subcommand(inner.name, inner.summary)->group(command.commands_title);
    add_command(*added, inner, commands);
  }
}

std::string help_text(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  std::string text = chosen.empty() ? app.help() : chosen.front()->help(app.get_name());
  for (size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
  while (text.ends_with("\n\n")) text.pop_back();
  return text;
}

std::string unexpected(const CLI::App& app) {
  const std::string argument = app.remaining(true).front();
  const bool verb = app.get_subcommands().empty() && !argument.starts_with('-');
  return fmt::format("{} '{}'", verb ? "unknown verb" : "unexpected argument", argument);
}

/// The arguments, last one first as CLI11 wants them. "--name=" becomes "--name" and an empty
/// value: CLI11 would take the next argument for the value.
std::vector<std::string> as_cli11_wants(std::vector<std::string> arguments) {
  std::vector<std::string> result;
  for (std::string& argument : arguments) {
    const bool empty_value =
        argument.starts_with("--") && argument.find('=') == argument.size() - 1;
    if (empty_value) argument.pop_back();
    result.push_back(std::move(argument));
    if (empty_value) result.emplace_back();
  }
  std::reverse(result.begin(), result.end());
  return result;
}

void read(CLI::App& app, std::vector<std::string> arguments, Request& request) {
  try {
    app.parse(as_cli11_wants(std::move(arguments)));
  } catch (const CLI::CallForHelp&) {
    request.text = help_text(app);
  } catch (const CLI::CallForVersion& version) {
    request.text = fmt::format("{}\n", version.what());
  } catch (const CLI::ExtrasError&) {
    request.problem = unexpected(app);
  } catch (const CLI::ParseError& error) {
    request.problem = error.what();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::usage) throw;
    request.problem = error.what();
  }
}

}  // namespace

Request parse(const Command& program, std::vector<std::string> arguments) {
  CLI::App app(program.summary, program.name);
  app.set_version_flag("--version", program.version, "Print the version");
  app.set_help_flag("--help,-h", "Print this help");
  app.get_formatter()->column_width(30);
  app.get_formatter()->label("SUBCOMMAND", "VERB");
  app.get_formatter()->label("Positionals", "Arguments");
  app.get_formatter()->label("Usage", "\nUsage");
  Commands commands;
  add_command(app, program, commands);

  Request request{.command = &program, .name = program.name};
  read(app, std::move(arguments), request);
  for (auto chosen = app.get_subcommands(); !chosen.empty();
       chosen = chosen.front()->get_subcommands()) {
    request.command = commands.at(chosen.front());
    request.name += " " + request.command->name;
  }
  return request;
}

void parse_options(const Command& command, std::vector<std::string> arguments) {
  CLI::App app;
  app.set_help_flag();
  add_options(app, command);
  std::reverse(arguments.begin(), arguments.end());
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorKind::usage, error.what());
  }
}

}  // namespace gqa::cli
