// An output folder that is there whole or not at all.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "io/abandoned.h"
#include "io/lock_file.h"

namespace gqa {

/// Writes a whole file and syncs it. Throws Error (io), naming the file.
void write_file(const std::filesystem::path& file, std::string_view content);
/// Copies a file and syncs the copy. Throws Error (no_input, io).
void copy_file_synced(const std::filesystem::path& from, const std::filesystem::path& to);

/// What becomes of a folder that is not committed.
enum class Unfinished {
  removed,  ///< its name is its process's own
  kept,     ///< always of the same name, and one process's at a time: a later one can go on
};

/// A folder beside the wanted one, filled first and renamed last. Those that killed processes left
/// behind for the same target go when the next one is made.
class StagingDir {
 public:
  /// Throws Error (cannot_create): `target` exists and force is not set; it exists and is not a
  /// model folder (no config.json), whatever force says; its parent is missing or can't be written;
  /// another process fills the kept folder.
  StagingDir(const std::filesystem::path& target, bool force,
             Unfinished unfinished = Unfinished::removed);
  ~StagingDir();
  StagingDir(const StagingDir&) = delete;
  StagingDir& operator=(const StagingDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Removes all that is in the folder. Throws Error (cannot_create).
  void empty() const;
  /// Syncs the folder and renames it to the target; an existing target is replaced in one step and
  /// then removed. Throws Error: cannot_create, io; what was there before is then still there,
  /// unless it is only its removal that failed (the message says so).
  void commit();

  /// Where a kept folder for the target is.
  static std::filesystem::path kept_path(const std::filesystem::path& target);

  /// The checks of the constructor alone, for a dry run.
  static void check(const std::filesystem::path& target, bool force);

 private:
  void make_own_folder(const std::string& name);
  void take_kept_folder(const std::string& name);

  std::filesystem::path target_;
  std::filesystem::path path_;
  bool force_;
  Unfinished unfinished_;
  std::unique_ptr<InUse> in_use_;   ///< of an own folder
  std::unique_ptr<LockFile> lock_;  ///< of a kept one
};

}  // namespace gqa
