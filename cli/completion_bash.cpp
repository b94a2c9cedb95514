#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "cli/completion.h"

namespace gqa::cli {
namespace {

// The words up to the cursor say which command the line is about, which of its options are there,
// and what comes next: a command, an option, or the value of an option or an argument.
constexpr const char* engine = R"(
_gqa() {
  COMPREPLY=()
  local commands places options flags forms list paths

  # Bash cuts words at = and : (COMP_WORDBREAKS): together again.
  local -a words=()
  local i part glue=''
  for ((i = 0; i <= COMP_CWORD; i++)); do
    part=${COMP_WORDS[i]}
    if [[ $i -gt 1 && (-n $glue || $part == [=:]*) ]]; then
      words[${#words[@]} - 1]+=$part
    else
      words+=("$part")
    fi
    glue=''
    [[ $part == *[=:] ]] && glue=yes
  done
  local last=$((${#words[@]} - 1))
  local current=${words[last]}

  local command=gqa option='' place=0 given=' ' word
  _gqa_takes "$command"
  for word in "${words[@]:1:last-1}"; do
    if [[ -n $option ]]; then
      option=''
    elif [[ $word == -* ]]; then
      given+="${word%%=*} "
      [[ $word != *=* && " $options " == *" $word "* ]] && option=$word
    elif [[ " $commands " == *" $word "* ]]; then
      command+=" $word" given=' '
      _gqa_takes "$command"
    else
      place=$((place + 1))
    fi
  done

  local value=$current
  if [[ -z $option && $current == --*=* ]]; then
    option=${current%%=*} value=${current#*=}
    [[ " $options " == *" $option "* ]] || return
  elif [[ -z $option && $current != -* ]]; then
    local -a named
    read -ra named <<<"$places"
    option=${named[place]}
  fi

  if [[ -z $option ]]; then
    local offered="$options $flags"
    [[ $current != -* && -n $commands ]] && offered=$commands
    for word in $offered; do
      [[ $word == "$current"* && $given != *" $word "* ]] && COMPREPLY+=("$word")
    done
    return
  fi

  # Whole words, with what stands before the value.
  local before=${current%"$value"} form
  _gqa_offers "$command" "$option"
  [[ -n $list ]] && before=${current%"${value##*,}"}
  for form in $forms; do
    word=$before$form
    [[ $form == *:* ]] && word=$before${form%%:*}:
    if [[ $form == *:FILE && $current == "$word"* ]]; then
      _gqa_paths files "$word" "${current#"$word"}"
    elif [[ $word == "$current"* ]]; then
      COMPREPLY+=("$word")
    fi
  done
  [[ -n $paths ]] && _gqa_paths "$paths" "$before" "$value"

  # Of a word that is cut, bash replaces what follows the last = or : alone.
  local cut kept=''
  for cut in = :; do
    [[ $COMP_WORDBREAKS == *$cut* && $current == *$cut* ]] || continue
    before=${current%"${current##*"$cut"}"}
    [[ ${#before} -gt ${#kept} ]] && kept=$before
  done
  COMPREPLY=("${COMPREPLY[@]#"$kept"}")
  # A form goes on after its colon.
  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
}

# Files or folders ($1) that begin as $3 does, after $2.
_gqa_paths() {
  local path kind=-f
  [[ $1 == folders ]] && kind=-d
  compopt -o filenames 2>/dev/null
  while IFS= read -r path; do
    COMPREPLY+=("$2$path")
  done < <(compgen "$kind" -- "$3")
}

complete -F _gqa gqa
)";

/// What a command takes, as assignments in a branch of `case`; then the same of those inside it.
void add_takes(const Command& command, const std::string& path, std::string& branches) {
  std::vector<std::string> commands, places, options, flags{"--help", "-h"};
  for (const Command& inner : command.commands) commands.push_back(inner.name);
  for (const Option& option : command.options) {
    auto& kind = option.positional() ? places : option.flag != nullptr ? flags : options;
    kind.push_back(option.name);
  }
  if (!command.version.empty()) flags.emplace_back("--version");
  branches += fmt::format(
      "    '{}')\n      commands='{}' places='{}'\n      options='{}'\n      flags='{}'\n      "
      ";;\n",
      path, fmt::join(commands, " "), fmt::join(places, " "), fmt::join(options, " "),
      fmt::join(flags, " "));
  for (const Command& inner : command.commands) {
    add_takes(inner, fmt::format("{} {}", path, inner.name), branches);
  }
}

/// What is offered for the values of a command's options and arguments, likewise.
void add_offers(const Command& command, const std::string& path, std::string& branches) {
  for (const Option& option : command.options) {
    if (option.forms.empty() && option.paths == Paths::none) continue;
    branches += fmt::format("    '{} {}')", path, option.name);
    if (!option.forms.empty()) branches += fmt::format(" forms='{}'", fmt::join(option.forms, " "));
    if (option.lists_forms) branches += " list=yes";
    if (option.paths == Paths::files) branches += " paths=files";
    if (option.paths == Paths::folders) branches += " paths=folders";
    branches += " ;;\n";
  }
  for (const Command& inner : command.commands) {
    add_offers(inner, fmt::format("{} {}", path, inner.name), branches);
  }
}

}  // namespace

std::string bash_completion(const Command& program) {
  std::string takes;
  add_takes(program, program.name, takes);
  std::string offers;
  add_offers(program, program.name, offers);
  return fmt::format(
      "# What gqa takes on a command line, for bash; written by `gqa completion bash`.\n\n"
      "# What command $1 takes.\n"
      "_gqa_takes() {{\n  case $1 in\n{}  esac\n}}\n\n"
      "# What the value of option (or argument) $2 of command $1 can be.\n"
      "_gqa_offers() {{\n  forms='' list='' paths=''\n  case \"$1 $2\" in\n{}  esac\n}}\n{}",
      takes, offers, engine);
}

}  // namespace gqa::cli
