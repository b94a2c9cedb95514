#include "io/rename.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "core/errno_text.h"
#include "core/fail.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_rename(const fs::path& from, const fs::path& to, int code) {
  fail(ErrorKind::cannot_create, "{}: can't rename {} to it: {}", to.string(), from.string(),
       errno_text(code));
}

/// Whether the error says that the file system lacks this kind of rename.
bool is_unsupported(int code) { return code == EINVAL || code == ENOSYS || code == EOPNOTSUPP; }

void rename_plainly(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_rename(from, to, errno);
}

}  // namespace

void exchange_folders(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  if (!is_unsupported(errno)) fail_rename(from, to, errno);
  exchange_folders_stepwise(from, to);
}

void exchange_folders_stepwise(const fs::path& from, const fs::path& to) {
  const fs::path aside = from.string() + ".old";
  rename_plainly(to, aside);
  try {
    rename_plainly(from, to);
  } catch (...) {
    static_cast<void>(::rename(aside.c_str(), to.c_str()));  // as it was
    throw;
  }
  rename_plainly(aside, from);
}

void rename_to_free(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
  if (!is_unsupported(errno)) fail_rename(from, to, errno);
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(to, ignored))) fail_rename(from, to, EEXIST);
  rename_plainly(from, to);
}

void replace_file(const fs::path& from, const fs::path& to) { rename_plainly(from, to); }

void sync_folder(const fs::path& dir) {
  const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail(ErrorKind::io, "{}: can't open: {}", dir.string(), errno_text(errno));
  const int result = ::fsync(fd);
  const int code = errno;
  ::close(fd);
  // Some network file systems can't sync a folder, and say so.
  if (result != 0 && code != EINVAL) {
    fail(ErrorKind::io, "{}: can't sync: {}", dir.string(), errno_text(code));
  }
}

}  // namespace gqa
