#include "cli/terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/poll.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "cli/signals.h"
#include "gqa/error.h"

namespace gqa::cli {
namespace {

[[noreturn]] void fail_output(int code) {
  if (code == EPIPE) throw BrokenPipe();
  throw Error(ErrorKind::io, fmt::format("standard output: cannot write: {}",
                                         std::generic_category().message(code)));
}

/// Messages are not worth failing for: what can't be written is dropped.
void print_message(std::string text) {
  text += '\n';
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (n <= 0) return;
    done += static_cast<size_t>(n);
  }
}

/// No terminal shall obey what a file's content or name put into a message.
std::string printable(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xc2 && i + 1 < text.size() &&  // U+0080 to U+009F
                    static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c == '\n') {
      result += "\\n";
    } else if (c < 0x20 || c == 0x7f) {
      result += fmt::format("\\x{:02x}", c);
    } else if (c1) {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++i]));
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

void open_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) != -1 || errno != EBADF) continue;
    // Read-only, for output too: what is written there must fail rather than vanish. open() gives
    // the lowest free number, which is this one.
    (void)open("/dev/null", O_RDONLY);
  }
}

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EINTR) {
      throw_if_interrupted();
    } else if (errno == EAGAIN) {
      pollfd ready{STDOUT_FILENO, POLLOUT, 0};
      poll(&ready, 1, -1);
      throw_if_interrupted();
    } else {
      fail_output(errno);
    }
  }
}

void print_json(const Json& object) { print(object.text() + "\n"); }

void close_output() {
  if (close(STDOUT_FILENO) != 0 && errno != EINTR && errno != EBADF) fail_output(errno);
}

void note(const Common& common, std::string_view message) {
  if (!common.quiet) print_message(printable(message));
}

void report_error(std::string_view message) { print_message("gqa: error: " + printable(message)); }

}  // namespace gqa::cli
