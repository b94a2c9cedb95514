// Model folders.
#pragma once

#include <filesystem>

namespace gqa {

/// Throws Error: no_input where there is no such folder, or a file in its place; io where it can't
/// be looked at.
void check_model_folder(const std::filesystem::path& dir);

}  // namespace gqa
