// Checkpoints to GGUF, the format of llama.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "gqa/config.h"
#include "gqa/gguf_dtype.h"
#include "gqa/progress.h"

namespace gqa {
#pragma GCC visibility push(default)

struct GgufOptions {
  /// Type of the matrices; none: each keeps its own. Norms and biases are always f32. Matrices
  /// whose rows are not a whole number of blocks are f16 in place of q8_0.
  std::optional<GgufDType> dtype;
  bool force = false;  ///< replace an existing GGUF file
};

/// What an export will do, before it does it.
struct GgufPlan {
  ModelConfig source;
  std::string architecture;        ///< "llama", or "deci" where layers differ in KV heads
  std::string tokenizer;           ///< tokenizer.ggml.model: "llama", "gpt2" or "no_vocab"
  std::vector<std::string> notes;  ///< what a person should know, a line each
  int64_t tensors = 0;
  int64_t output_bytes = 0;       ///< of the file
  int64_t peak_memory_bytes = 0;  ///< estimate, beyond the mapped source
};

/// Reads and checks the source (config, headers, tokenizer); writes nothing. Throws Error: no_input
/// or bad_data for its files, bad_data also where GGUF as llama.cpp reads it can't express the
/// model or its tokenizer: groups of unequal sizes within a layer, a pre-tokenizer that llama.cpp
/// does not know, merges whose results its way of merging does not give.
GgufPlan plan_gguf(const std::filesystem::path& source, const GgufOptions& options);

/// Writes the model as one GGUF file (version 3) that llama.cpp loads and computes the same with.
/// It is written beside itself, synced and renamed last, so it is there whole or not at all. The
/// same source and options give the same bytes. Throws Error: as plan_gguf(), and as
/// check_gguf_place(); cannot_create where there is no room, io where writing fails, bad_data for a
/// weight that is not finite or does not fit the wanted type.
void export_gguf(const std::filesystem::path& source, const std::filesystem::path& out,
                 const GgufOptions& options, const Progress& progress = {});

/// Throws Error (cannot_create) where `out` exists (without force), is not a GGUF file (whatever
/// force says), or its parent is missing or can't be written.
void check_gguf_place(const std::filesystem::path& out, bool force);

#pragma GCC visibility pop
}  // namespace gqa
