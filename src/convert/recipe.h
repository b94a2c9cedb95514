// gqa_recipe.json: what made a folder, from what, and what came out.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/export.h"
#include "gqa/progress.h"
#include "io/json.h"

namespace gqa {

inline constexpr const char* recipe_name = "gqa_recipe.json";

/// JSON text. `written`: the folder with everything but the recipe. Holds no time, no place and no
/// name of the output: the same conversion gives the same bytes.
std::string make_recipe(const ExportJob& job, const std::filesystem::path& written,
                        const Progress& progress);

struct FileHash {
  std::string name;  ///< in the folder
  std::string sha256;
};

/// The hashes under recipe.`part`, "source" or "output". Throws Error (bad_data), also where the
/// recipe's version is not ours or a name leads out of the folder.
std::vector<FileHash> read_hashes(const JsonFields& recipe, const std::string& part);

}  // namespace gqa
