// An output file that is there whole or not at all.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "io/abandoned.h"

namespace gqa {

/// A file beside the wanted one, written first and renamed last. Unless committed, the destructor
/// removes it.
class StagedFile {
 public:
  /// Throws Error (cannot_create): `target` exists and force is not set; it exists and is not a
  /// file that begins with `magic`, whatever force says; its parent is missing or can't be written.
  StagedFile(const std::filesystem::path& target, bool force, std::string magic);
  ~StagedFile();
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;

  /// What to write: nobody else's, and empty so far. Close it before commit().
  const std::filesystem::path& path() const { return path_; }
  /// Renames the file, which must be synced, to the target, in place of what was there. Throws
  /// Error (cannot_create, io); what was there before is then still there.
  void commit();

  /// The checks of the constructor alone, for a dry run.
  static void check(const std::filesystem::path& target, bool force, const std::string& magic);

 private:
  std::filesystem::path target_;
  std::filesystem::path path_;
  bool force_;
  std::string magic_;
  std::unique_ptr<InUse> in_use_;
};

}  // namespace gqa
