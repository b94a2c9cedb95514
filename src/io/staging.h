// An output folder that is there whole or not at all.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace gqa {

/// Writes a whole file and syncs it. Throws Error (io), naming the file.
void write_file(const std::filesystem::path& file, std::string_view content);
/// Copies a file and syncs the copy. Throws Error (no_input, io).
void copy_file_synced(const std::filesystem::path& from, const std::filesystem::path& to);

/// A folder beside the wanted one, filled first and renamed last. Unless committed, the destructor
/// removes it.
class StagingDir {
 public:
  /// Throws Error (cannot_create): `target` exists and force is not set; it exists and is not a
  /// model folder (no config.json), whatever force says; its parent is missing or can't be written.
  StagingDir(const std::filesystem::path& target, bool force);
  ~StagingDir();
  StagingDir(const StagingDir&) = delete;
  StagingDir& operator=(const StagingDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Syncs the folder and renames it to the target; an existing target is replaced in one step and
  /// then removed. Throws Error: cannot_create, io; what was there before is then still there,
  /// unless it is only its removal that failed (the message says so).
  void commit();

  /// The checks of the constructor alone, for a dry run.
  static void check(const std::filesystem::path& target, bool force);

 private:
  std::filesystem::path target_;
  std::filesystem::path path_;
  bool force_;
};

}  // namespace gqa
