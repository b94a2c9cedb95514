// README.md of a converted model.
#pragma once

#include <filesystem>
#include <string>

#include "convert/export.h"

namespace gqa {

/// Markdown with Hugging Face's YAML front matter.
std::string model_card(const ExportJob& job);

/// The `license...` lines of a README's front matter, as they stand; empty where there are none.
std::string license_lines(const std::filesystem::path& readme);

}  // namespace gqa
