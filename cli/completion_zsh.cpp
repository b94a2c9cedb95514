#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "cli/completion.h"

namespace gqa::cli {
namespace {

// Read by `source`, the script registers itself; as a file of $fpath, it is the function's body.
constexpr const char* ending = R"(
# Offers forms, of $1. What follows a form's colon is the user's, but for a FILE.
_gqa_forms() {
  local form found=1
  local -a expl whole open
  _description forms expl "$1"
  for form in "${@:2}"; do
    if [[ $form == *:FILE && $PREFIX == ${form%FILE}* ]]; then
      compset -P "${form%FILE}"
      _files
      return
    elif [[ $form == *:* ]]; then
      open+=("${form%%:*}:")
    else
      whole+=("$form")
    fi
  done
  compadd "$expl[@]" -a whole && found=0
  compadd "$expl[@]" -S '' -a open && found=0
  return found
}

if [[ $funcstack[1] == _gqa ]]; then
  _gqa "$@"
else
  compdef _gqa gqa
fi
)";

std::string function_name(const std::string& path) {
  std::string name = "_" + path;
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

/// Inside single quotes; characters of `special` lose their meaning to zsh's functions.
std::string escaped(std::string_view text, std::string_view special) {
  std::string result;
  for (const char c : text) {
    if (c == '\'') {
      result += R"('\'')";
    } else if (c == '\n') {
      result += ' ';
    } else {
      if (special.find(c) != std::string_view::npos) result += '\\';
      result += c;
    }
  }
  return result;
}

/// What _arguments does for a value: "message:action". It runs an action that begins with a space
/// as it stands, and adds no options of its own.
std::string value_spec(const Option& option) {
  const std::string& message = option.positional() ? option.name : option.placeholder;
  std::string forms;
  for (const std::string& form : option.forms) forms += " " + escaped(form, ":[]\\");
  std::vector<std::string> actions;
  if (option.lists_forms) {
    actions.push_back(fmt::format("_values -s , {}{}", message, forms));
  } else if (!option.forms.empty()) {
    actions.push_back(fmt::format("_gqa_forms {}{}", message, forms));
  }
  if (option.paths == Paths::files) actions.emplace_back("_files");
  if (option.paths == Paths::folders) actions.emplace_back("_files -/");
  return actions.size() > 1 ? fmt::format("{}:{{ {} }}", message, fmt::join(actions, "; "))
                            : fmt::format("{}: {}", message, fmt::join(actions, ""));
}

/// Every option that one excludes, or that excludes it.
std::map<std::string, std::set<std::string>> exclusions(const Command& command) {
  std::map<std::string, std::set<std::string>> result;
  for (const Option& option : command.options) {
    for (const std::string& other : option.excludes) {
      result[option.name].insert(other);
      result[other].insert(option.name);
    }
  }
  return result;
}

/// A line of `_arguments`.
std::string option_spec(const Option& option, const std::set<std::string>& excluded) {
  if (option.positional()) return fmt::format("':{}'", value_spec(option));
  const std::string others =
      excluded.empty() ? "" : fmt::format("({} {})", option.name, fmt::join(excluded, " "));
  const std::string description = escaped(option.description, "[]:\\");
  if (option.flag != nullptr) return fmt::format("'{}{}[{}]'", others, option.name, description);
  return fmt::format("'{}{}=[{}]:{}'", others, option.name, description, value_spec(option));
}

/// A function for the command, and one for each inside it.
std::string functions(const Command& command, const std::string& path) {
  std::string lines = "    '(- *)'{-h,--help}'[Print this help]'";
  if (!command.version.empty()) lines += " \\\n    '(- *)--version[Print the version]'";
  auto excluded = exclusions(command);
  for (const Option& option : command.options) {
    lines += " \\\n    " + option_spec(option, excluded[option.name]);
  }
  if (command.commands.empty()) {
    return fmt::format("\n{}() {{\n  _arguments \\\n{}\n}}\n", function_name(path), lines);
  }
  std::string names, branches, inner_functions;
  for (const Command& inner : command.commands) {
    const std::string inner_path = fmt::format("{} {}", path, inner.name);
    names += fmt::format("        '{}:{}'\n", inner.name, escaped(inner.summary, ":\\"));
    branches +=
        fmt::format("        {}) {} && found=0 ;;\n", inner.name, function_name(inner_path));
    inner_functions += functions(inner, inner_path);
  }
  return fmt::format(R"(
{}() {{
  local curcontext=$curcontext state line found=1
  typeset -A opt_args
  _arguments -C \
{} \
    '1: :->command' \
    '*:: :->arguments' && found=0
  case $state in
    command)
      local -a commands=(
{}      )
      _describe -t commands command commands && found=0
      ;;
    arguments)
      curcontext="${{curcontext%:*:*}}:{}-$words[1]:"
      case $words[1] in
{}      esac
      ;;
  esac
  return found
}}
)",
                     function_name(path), lines, names, path, branches) +
         inner_functions;
}

}  // namespace

std::string zsh_completion(const Command& program) {
  return "#compdef gqa\n# What gqa takes on a command line, for zsh; written by `gqa completion "
         "zsh`.\n" +
         functions(program, program.name) + ending;
}

}  // namespace gqa::cli
