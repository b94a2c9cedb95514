// What verbs read.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "gqa/model.h"
#include "gqa/tokenizer.h"

namespace gqa::cli {

/// Throws Error (bad_data), naming `source` and the offset, for a text that is not UTF-8.
void check_utf8(std::string_view text, std::string_view source);

/// A text file's content. Throws Error: no_input, io, and bad_data where it is empty or not UTF-8.
std::string read_text_file(const std::filesystem::path& file);

/// A text file's lines, without their breaks ("\n" or "\r\n"); the last one may lack its own.
/// Throws Error: no_input, io, and bad_data where the file is empty or a line (FILE:N) is not
/// UTF-8.
std::vector<std::string> read_lines(const std::filesystem::path& file);

struct LoadedModel {
  Model model;
  Tokenizer tokenizer;
};
/// A model folder's model and tokenizer, which fit each other. Throws Error (no_input, bad_data).
LoadedModel load_model(const std::filesystem::path& dir, WeightDType weight_dtype,
                       const Progress& progress);

}  // namespace gqa::cli
