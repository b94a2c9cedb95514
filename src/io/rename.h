// Renaming files and folders so that a crash leaves the old or the new one, whole.
#pragma once

#include <filesystem>

namespace gqa {

/// What lies at `from` and `to` change places. Throws Error (cannot_create); nothing has changed
/// then.
void exchange_folders(const std::filesystem::path& from, const std::filesystem::path& to);
/// The same for file systems that can't do it in one step: for a moment, nothing is at `to`.
void exchange_folders_stepwise(const std::filesystem::path& from, const std::filesystem::path& to);

/// Throws Error (cannot_create), also where something is at `to`.
void rename_to_free(const std::filesystem::path& from, const std::filesystem::path& to);

/// The file at `from` takes the place of what lies at `to`, in one step. Throws Error
/// (cannot_create); nothing has changed then.
void replace_file(const std::filesystem::path& from, const std::filesystem::path& to);

/// Makes renames in a folder last. Throws Error (io).
void sync_folder(const std::filesystem::path& dir);

}  // namespace gqa
