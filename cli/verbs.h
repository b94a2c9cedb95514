// The verbs of the program, one file each.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace gqa::cli {

/// Does a verb's work and gives the exit code. Throws Error, BrokenPipe.
using Run = std::function<int()>;

// Each declares its verb's options on `verb` and returns what runs it once they are read.
Run declare_inspect(CLI::App& verb);
Run declare_convert(CLI::App& verb);
Run declare_expand(CLI::App& verb);
Run declare_export(CLI::App& verb);
Run declare_eval(CLI::App& verb);
Run declare_generate(CLI::App& verb);
Run declare_bench(CLI::App& verb);
Run declare_tune(CLI::App& verb);
Run declare_verify(CLI::App& verb);
Run declare_doctor(CLI::App& verb);

}  // namespace gqa::cli
