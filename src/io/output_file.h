// Writing a file to disk, for certain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace gqa {

/// Buffers small writes, passes large ones through, and has the system write them out early, so
/// that little is left to wait for at the end. Every failure (disk full, file too large, ...) is an
/// Error (io) that names the file.
class OutputFile {
 public:
  /// Creates the file; of one that is there, the first `keep_bytes` bytes stay.
  explicit OutputFile(const std::filesystem::path& path, int64_t keep_bytes = 0);
  /// Closes the file; what was not closed by close() may be incomplete.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> data);
  void write(std::string_view text);
  /// Writes what is buffered and syncs: after it, the content is on the disk.
  void close();
  /// Hands what is buffered to the system: other processes see it, and it outlives this one.
  void flush();

 private:
  void put(std::span<const std::byte> data);
  void start_writing_out();
  [[noreturn]] void fail_with(std::string_view what, int code) const;

  std::filesystem::path path_;
  int fd_ = -1;
  std::vector<std::byte> buffer_;
  int64_t end_ = 0;             ///< of what the system has
  int64_t handed_to_disk_ = 0;  ///< up to here it has been asked to write it out
};

}  // namespace gqa
