// Model folders.
#pragma once

#include <filesystem>
#include <functional>
#include <system_error>

namespace gqa {

/// Throws Error: no_input where there is no such folder, or a file in its place; io where it can't
/// be looked at.
void check_model_folder(const std::filesystem::path& dir);

/// Removes what is in a folder, but for what `keep` is true of; stops at the first error.
std::error_code remove_contents(const std::filesystem::path& dir,
                                const std::function<bool(const std::filesystem::path&)>& keep);

}  // namespace gqa
