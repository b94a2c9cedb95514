// What the program takes, as data. The parser (parse.h), help and the shells' completion all read
// this; verbs write it, with the helpers of args.h.
#pragma once

#include <functional>
#include <list>
#include <string>
#include <vector>

namespace gqa::cli {

/// Does a verb's work and gives the exit code. Throws Error, BrokenPipe.
using Run = std::function<int()>;

/// Files and folders that a value can name.
enum class Paths { none, files, folders };

/// An option, or a positional argument: one that must be given.
struct Option {
  std::string name;         ///< "--kv-heads"; of a positional argument "MODEL"
  std::string placeholder;  ///< what help calls the value
  std::string description;
  std::string group = "Options";  ///< what help lists it under
  bool required = false;
  std::vector<std::string> needs = {};     ///< options that must be there, too
  std::vector<std::string> excludes = {};  ///< options that must not

  /// A flag's: becomes true. An option with a value has none.
  bool* flag = nullptr;
  /// Reads the value as it was typed, empty or not, or refuses it (Error, usage).
  std::function<void(const std::string& value)> set = {};

  // What shells offer as the value.
  std::vector<std::string> forms = {};  ///< "pca"; "window:W", of which they offer "window:"
  bool lists_forms = false;             ///< several of them, with commas between
  Paths paths = Paths::none;

  bool positional() const { return !name.starts_with('-'); }
};

/// The program, a verb, or what a verb does (`bench decode`). All have --help (-h), too. In lists,
/// so that references to what is in them stay.
struct Command {
  std::string name;
  std::string summary;
  std::string footer = {};   ///< the last lines of its help
  std::string version = {};  ///< what --version prints; empty: there is no such option
  std::list<Option> options = {};
  std::string commands_title = {};  ///< what help lists its commands under
  std::list<Command> commands = {};
  /// Arguments are not looked at.
  bool takes_anything = false;
  /// Where none of its commands is named.
  Run run = {};
};

}  // namespace gqa::cli
