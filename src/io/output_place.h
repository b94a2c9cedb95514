// Where an output is to lie, checked before anything is written.
#pragma once

#include <filesystem>
#include <string>

namespace gqa {

/// Whether anything is there, a dangling link included.
bool is_there(const std::filesystem::path& path);

/// The target's absolute path, without a trailing slash and without symbolic links: what is renamed
/// must be the thing itself. Throws Error (cannot_create), also where its parent is missing.
std::filesystem::path resolve_target(const std::filesystem::path& target);

/// Throws Error (cannot_create) where a resolved target's parent is no folder or can't be written.
void check_parent(const std::filesystem::path& target);

/// ".NAME.partial": what names beside a resolved target begin with, where it is being written; the
/// last rename then stays in one file system.
std::string partial_name(const std::filesystem::path& target);

}  // namespace gqa
