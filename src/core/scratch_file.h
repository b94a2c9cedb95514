// Memory that the system may write out: a file without a name, mapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace gqa {

/// Bytes of a file that no name leads to, so that nothing stays behind however the program ends.
/// They are no anonymous memory: pages go to the disk when memory is short, and come back.
class ScratchFile {
 public:
  ScratchFile() = default;
  /// `bytes` zeros, with room for all of them on the disk of the folder that is wanted: writing to
  /// them can't fail later. No folder wanted (empty): TMPDIR, or /tmp. Throws Error: cannot_create
  /// where the folder takes no file, io where its disk is too full, resources where it can't be
  /// mapped.
  ScratchFile(const std::filesystem::path& wanted, int64_t bytes);
  ~ScratchFile();
  ScratchFile(ScratchFile&& other) noexcept;
  ScratchFile& operator=(ScratchFile&& other) noexcept;

  /// Aligned to a page; null where there are no bytes.
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gqa
