// The one exception type of the library.
#pragma once

#include <stdexcept>
#include <string>

namespace gqa {
#pragma GCC visibility push(default)

/// What went wrong; the value is the exit code of the program (sysexits where one fits).
enum class ErrorKind : int {
  usage = 2,           ///< a wrong argument or option
  bad_data = 65,       ///< a file's content is not what it must be
  no_input = 66,       ///< an input file or folder is not there
  resources = 71,      ///< out of memory or of another resource
  cannot_create = 73,  ///< an output exists, or its place can't be written to
  io = 74,             ///< reading or writing failed half-way
  stopped = 75,        ///< before the end, but the same call again goes on
  interrupted = 130,   ///< the user stopped it
};

/// Thrown by every function of the library that fails. what() names the file, the field, what was
/// expected and what came.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

#pragma GCC visibility pop
}  // namespace gqa
