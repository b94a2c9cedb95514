// `bench recall`.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/verbs.h"

namespace gqa::cli {

Run declare_recall(CLI::App& verb);

}  // namespace gqa::cli
