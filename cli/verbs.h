// The verbs of the program, one file each.
#pragma once

#include "cli/command.h"

namespace gqa::cli {

// Each declares its verb's options on `verb`, and what runs it once they are read.
void declare_inspect(Command& verb);
void declare_convert(Command& verb);
void declare_expand(Command& verb);
void declare_export(Command& verb);
void declare_eval(Command& verb);
void declare_generate(Command& verb);
void declare_bench(Command& verb);
void declare_tune(Command& verb);
void declare_verify(Command& verb);
void declare_doctor(Command& verb);

}  // namespace gqa::cli
