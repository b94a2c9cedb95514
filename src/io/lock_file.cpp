#include "io/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "core/errno_text.h"
#include "core/fail.h"

namespace gqa {
namespace {

/// Whether the open file is still the one of that name: its holder removes it before it lets go.
bool is_file_at(int fd, const std::filesystem::path& path) {
  struct stat open {};
  struct stat named {};
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

}  // namespace

LockFile::LockFile(const std::filesystem::path& path) : path_(path) {
  while (true) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) {
      fail(ErrorKind::cannot_create, "{}: can't create: {}", path.string(), errno_text(errno));
    }
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int code = errno;
      ::close(fd_);
      fail(ErrorKind::cannot_create, "{}: can't lock: {}", path.string(),
           code == EWOULDBLOCK ? "another process is writing there" : errno_text(code));
    }
    if (is_file_at(fd_, path)) return;
    ::close(fd_);
  }
}

LockFile::~LockFile() {
  ::unlink(path_.c_str());
  ::close(fd_);
}

}  // namespace gqa
