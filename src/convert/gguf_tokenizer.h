// A tokenizer.json as GGUF has it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf_writer.h"
#include "tokenizer/tokenizer_file.h"

namespace gqa {

/// What GGUF's tokenizer.ggml.* say.
struct GgufTokenizer {
  std::string model;                ///< "llama" (pieces with scores) or "gpt2" (merges)
  std::string pre;                  ///< of gpt2: llama.cpp's name of the pre-tokenizer
  std::vector<std::string> tokens;  ///< by id, as many as the model has
  std::vector<int32_t> types;       ///< by id
  std::vector<float> scores;        ///< of llama: by id; what is merged first has the highest
  std::vector<std::string> merges;  ///< of gpt2: "left right"
  bool add_space_prefix = false;    ///< of llama
  std::optional<int32_t> unknown;
  /// What the post-processor puts in front of a text and behind it; none where it does not say.
  std::optional<bool> adds_first, adds_last;
  std::optional<int32_t> first;  ///< the id in front
  std::vector<std::string> notes;
};

/// The tokenizer of a model with this many ids; the file is one that Tokenizer::load() accepts.
/// Throws Error (bad_data, naming file and field) where llama.cpp would tokenize otherwise and no
/// metadata can tell it how.
GgufTokenizer gguf_tokenizer(const std::filesystem::path& path, int64_t vocab_size);

/// Adds a tokenizer's lists.
void add_tokenizer(GgufMetadata& metadata, const GgufTokenizer& tokenizer);

}  // namespace gqa
