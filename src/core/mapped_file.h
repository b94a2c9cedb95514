// A file's bytes, read-only, mapped into memory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace gqa {

class MappedFile {
 public:
  /// Throws Error: no_input where the file is missing, io where it can't be read.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gqa
