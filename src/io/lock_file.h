// One process at a time.
#pragma once

#include <filesystem>

namespace gqa {

/// A file that is locked (flock) as long as this lives and goes with it. After a kill -9 the file
/// stays, but not the lock.
class LockFile {
 public:
  /// Throws Error (cannot_create) where another process holds it, or the file can't be made.
  explicit LockFile(const std::filesystem::path& path);
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace gqa
