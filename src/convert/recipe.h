// gqa_recipe.json: what made a folder, from what, and what came out.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/export.h"
#include "io/json.h"
#include "io/safetensors_writer.h"

namespace gqa {

inline constexpr const char* recipe_name = "gqa_recipe.json";

/// What a conversion depends on: weights, their index, config.
std::vector<std::filesystem::path> source_files(const std::filesystem::path& dir,
                                                const Checkpoint& checkpoint);

/// What is made from what: the recipe without the output. Holds no time, no place and no name of
/// the output: the same conversion gives the same bytes.
Json describe(const ExportJob& job, const std::vector<FileHash>& source);
/// The same where fitting was given up.
Json without_fitting(Json description);
/// The recipe as JSON text; `output`: every file of the folder but the recipe.
std::string recipe_text(Json description, const std::vector<FileHash>& output);

/// The hashes under recipe.`part`, "source" or "output". Throws Error (bad_data), also where the
/// recipe's version is not ours or a name leads out of the folder.
std::vector<FileHash> read_hashes(const JsonFields& recipe, const std::string& part);

}  // namespace gqa
