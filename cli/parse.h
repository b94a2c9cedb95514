// Reads a command line by the description of what the program takes.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"

namespace gqa::cli {

/// What a command line asks for: to run a command, where neither text nor problem is set.
struct Request {
  const Command* command = nullptr;  ///< the innermost that it names
  std::string name = {};             ///< "gqa bench decode"
  std::string text = {};             ///< to print and be done: help, or the version
  std::string problem = {};          ///< why it can't be read
};

/// Reads the arguments (without the program's name) into the values of `program`'s options. Throws
/// what an option's `set` throws, unless that is a usage error.
Request parse(const Command& program, std::vector<std::string> arguments);

/// Reads options alone, without --help. Throws Error (usage).
void parse_options(const Command& command, std::vector<std::string> arguments);

}  // namespace gqa::cli
