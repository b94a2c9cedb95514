// Scripts that teach a shell what the program takes.
#pragma once

#include <string>

#include "cli/command.h"

namespace gqa::cli {

/// `completion SHELL`, of everything in `program`, which outlives the verb.
void declare_completion(Command& verb, const Command& program);

std::string bash_completion(const Command& program);
std::string zsh_completion(const Command& program);

}  // namespace gqa::cli
