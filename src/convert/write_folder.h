// From a job to a model folder.
#pragma once

#include <filesystem>

#include "convert/export.h"
#include "gqa/progress.h"

namespace gqa {

/// Writes weights, config.json, carried files, model card and recipe beside `out`, and puts them in
/// its place: as Conversion::write().
void write_folder(const ExportJob& job, const std::filesystem::path& out, const Progress& progress);

}  // namespace gqa
