#include "core/scratch_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>

#include "core/errno_text.h"
#include "core/fail.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// Closes a file descriptor at the end of a scope.
struct Descriptor {
  int fd;
  ~Descriptor() { ::close(fd); }
};

/// A file without a name; some file systems want it to have had one.
int open_nameless(const fs::path& folder) {
#ifdef O_TMPFILE
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
#endif
  std::string name = (folder / ".gqa-scratch-XXXXXX").string();
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(name.c_str());
  return named;
}

fs::path or_temporary(const fs::path& folder) {
  if (!folder.empty()) return folder;
  std::error_code error;
  const fs::path temporary = fs::temp_directory_path(error);
  if (error) fail(ErrorKind::cannot_create, "TMPDIR: {}", error.message());
  return temporary;
}

}  // namespace

ScratchFile::ScratchFile(const fs::path& wanted, int64_t bytes) {
  if (bytes == 0) return;  // mmap refuses empty files
  const fs::path folder = or_temporary(wanted);
  const int fd = open_nameless(folder);
  if (fd < 0) {
    fail(ErrorKind::cannot_create, "{}: can't make a scratch file: {}", folder.string(),
         errno_text(errno));
  }
  const Descriptor descriptor{fd};
  int error = EINTR;
  while (error == EINTR) error = ::posix_fallocate(fd, 0, bytes);
  if (error != 0) {
    fail(ErrorKind::io, "{}: no room for a scratch file of {} bytes: {}", folder.string(), bytes,
         errno_text(error));
  }
  size_ = static_cast<size_t>(bytes);
  void* mapped = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) {
    fail(ErrorKind::resources, "{}: can't map a scratch file of {} bytes: {}", folder.string(),
         bytes, errno_text(errno));
  }
  data_ = mapped;
}

ScratchFile::~ScratchFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

ScratchFile::ScratchFile(ScratchFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

ScratchFile& ScratchFile::operator=(ScratchFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace gqa
