// A tokenizer.json as it is read: vocabulary and merges as lists, all else as JSON.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "io/json_value.h"

namespace gqa {

/// Vocabularies have up to hundreds of thousands of entries, where Json (which keeps the order of
/// keys and searches them one by one) would take minutes. So `model.vocab`, where it is an object,
/// and `model.merges`, where it is a list, are kept apart and are absent from `rest`.
struct TokenizerFile {
  std::filesystem::path path;
  Json rest;
  bool has_vocab = false, has_merges = false;
  std::vector<std::pair<std::string, int64_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;

  /// Throws Error: no_input, io, bad_data (not UTF-8, not JSON, a key given twice outside the
  /// vocabulary, too deep, a vocabulary entry that is no id or a merge that is no pair).
  static TokenizerFile read(const std::filesystem::path& path);
};

}  // namespace gqa
