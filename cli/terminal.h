// Standard output for data, standard error for messages.
#pragma once

#include <string>
#include <string_view>

#include "cli/args.h"
#include "cli/json.h"

namespace gqa::cli {

/// Thrown where the reader of standard output has gone: nothing to say to anybody.
struct BrokenPipe {};

/// Opens /dev/null in place of standard streams that are closed, so that no file gets their
/// numbers.
void open_standard_streams();

/// Writes to standard output, at once. Throws BrokenPipe, and Error (io) where it can't be written.
void print(std::string_view text);
/// Prints one object on a line of its own. NaN and infinity become null; bytes that are not UTF-8,
/// as in a file's name, become U+FFFD.
void print_json(const Json& object);
/// Closes standard output; some file systems tell only then that a write failed. Throws as print().
void close_output();

/// A line on standard error, left out with --quiet.
void note(const Common& common, std::string_view message);
/// One line on standard error; control characters, line breaks included, are shown as escapes.
void report_error(std::string_view message);

}  // namespace gqa::cli
