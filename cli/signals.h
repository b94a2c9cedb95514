// Ctrl-C and its kin.
#pragma once

namespace gqa::cli {

/// SIGINT, SIGTERM and SIGHUP: the first one is noted and the work stops at its next report of
/// progress; a second one kills at once. SIGPIPE and SIGXFSZ are ignored: the write that causes
/// them fails.
void install_signal_handlers();

bool interrupted();

/// Throws Error (interrupted) after a signal.
void throw_if_interrupted();

}  // namespace gqa::cli
