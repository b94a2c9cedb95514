// Where an output may go.
#pragma once

#include <cstdint>
#include <filesystem>

namespace gqa {

/// The same path without a slash at its end.
std::filesystem::path without_slash(const std::filesystem::path& path);

/// `out` without a slash at its end. Throws Error (cannot_create) where it is the source, inside it
/// or around it.
std::filesystem::path check_apart(const std::filesystem::path& source,
                                  const std::filesystem::path& out);

/// Throws Error (cannot_create) where the file system of `out`'s parent has less than this free.
void check_free_space(const std::filesystem::path& out, int64_t need_bytes);

}  // namespace gqa
