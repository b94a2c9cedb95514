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
constexpr int64_t write_out_bytes = int64_t{8} << 20;

}  // namespace

OutputFile::OutputFile(const std::filesystem::path& path, int64_t keep_bytes)
    : path_(path), end_(keep_bytes), handed_to_disk_(keep_bytes) {
  buffer_.reserve(buffer_bytes);
  const int truncate = keep_bytes == 0 ? O_TRUNC : 0;
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | truncate, 0666);
  if (fd_ < 0) fail_with("can't create", errno);
  if (keep_bytes == 0) return;
  const bool kept = ::ftruncate(fd_, keep_bytes) == 0 && ::lseek(fd_, keep_bytes, SEEK_SET) >= 0;
  if (kept) return;
  const int code = errno;
  ::close(fd_);
  fail_with("can't write on", code);
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
    end_ += n;
  }
  start_writing_out();
}

void OutputFile::start_writing_out() {
  if (end_ - handed_to_disk_ < write_out_bytes) return;
  // Only a hint: what fails for good shows when the file is synced.
  static_cast<void>(
      ::sync_file_range(fd_, handed_to_disk_, end_ - handed_to_disk_, SYNC_FILE_RANGE_WRITE));
  handed_to_disk_ = end_;
}

void OutputFile::fail_with(std::string_view what, int code) const {
  fail(ErrorKind::io, "{}: {}: {}", path_.string(), what, errno_text(code));
}

}  // namespace gqa
