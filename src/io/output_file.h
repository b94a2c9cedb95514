// Writing a file to disk, for certain.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace gqa {

/// Buffers small writes, passes large ones through. Every failure (disk full, file too large, ...)
/// is an Error (io) that names the file.
class OutputFile {
 public:
  /// Creates the file or empties it.
  explicit OutputFile(const std::filesystem::path& path);
  /// Closes the file; what was not closed by close() may be incomplete.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> data);
  void write(std::string_view text);
  /// Writes what is buffered and syncs: after it, the content is on the disk.
  void close();

 private:
  void put(std::span<const std::byte> data);
  void flush();
  [[noreturn]] void fail_with(std::string_view what, int code) const;

  std::filesystem::path path_;
  int fd_ = -1;
  std::vector<std::byte> buffer_;
};

}  // namespace gqa
