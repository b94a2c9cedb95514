#include "io/abandoned.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <optional>
#include <string_view>
#include <vector>

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// Takes a number above 0 off the front.
std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

/// The process that a name of name_in_use() names.
std::optional<pid_t> process_of(std::string_view name, const std::string& prefix) {
  if (!name.starts_with(prefix + "-")) return std::nullopt;
  name.remove_prefix(prefix.size() + 1);
  const auto pid = take_number(name);
  if (!pid || *pid == 0 || !name.starts_with('-')) return std::nullopt;
  name.remove_prefix(1);
  return take_number(name) && name.empty() ? pid : std::nullopt;
}

bool is_dead(pid_t pid) { return ::kill(pid, 0) != 0 && errno == ESRCH; }

int open_for_lock(const fs::path& path) {
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

void remove_unused(const fs::path& path) {
  const int fd = open_for_lock(path);
  if (fd < 0) return;
  std::error_code ignored;
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) fs::remove_all(path, ignored);
  ::close(fd);
}

}  // namespace

std::string name_in_use(const std::string& prefix, int n) {
  return fmt::format("{}-{}-{}", prefix, ::getpid(), n);
}

InUse::InUse(const fs::path& path) : fd_(open_for_lock(path)) {
  if (fd_ >= 0) static_cast<void>(::flock(fd_, LOCK_SH | LOCK_NB));
}

InUse::~InUse() {
  if (fd_ >= 0) ::close(fd_);
}

void remove_abandoned(const fs::path& parent, const std::string& prefix) {
  std::vector<fs::path> abandoned;
  std::error_code error;
  fs::directory_iterator it(parent, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const auto pid = process_of(it->path().filename().string(), prefix);
    if (pid && is_dead(*pid)) abandoned.push_back(it->path());
  }
  for (const fs::path& path : abandoned) remove_unused(path);
}

}  // namespace gqa
