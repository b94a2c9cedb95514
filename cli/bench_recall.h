// `bench recall`.
#pragma once

#include "cli/command.h"

namespace gqa::cli {

void declare_recall(Command& verb);

}  // namespace gqa::cli
