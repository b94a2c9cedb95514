#include "io/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/errno_text.h"
#include "core/fail.h"

namespace gqa {
namespace {

constexpr size_t buffer_bytes = size_t{1} << 20;

}  // namespace

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path) {
  buffer_.reserve(buffer_bytes);
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_with("can't create", errno);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::write(std::span<const std::byte> data) {
  if (buffer_.size() + data.size() > buffer_bytes) flush();
  if (data.size() >= buffer_bytes) {
    put(data);
  } else {
    buffer_.insert(buffer_.end(), data.begin(), data.end());
  }
}

void OutputFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void OutputFile::close() {
  flush();
  if (::fsync(fd_) != 0) fail_with("can't sync", errno);
  // The descriptor is gone even where close() fails.
  if (::close(std::exchange(fd_, -1)) != 0) fail_with("can't close", errno);
}

void OutputFile::flush() {
  put(buffer_);
  buffer_.clear();
}

void OutputFile::put(std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd_, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_with("can't write", errno);
    if (n == 0) fail_with("can't write", ENOSPC);
    data = data.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::fail_with(std::string_view what, int code) const {
  fail(ErrorKind::io, "{}: {}: {}", path_.string(), what, errno_text(code));
}

}  // namespace gqa
