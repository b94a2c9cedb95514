// SHA-256 of files, as sha256sum prints it.
#pragma once

#include <filesystem>
#include <string>

namespace gqa {

/// 64 hexadecimal digits. Throws Error (no_input, io).
std::string sha256_of_file(const std::filesystem::path& file);

}  // namespace gqa
