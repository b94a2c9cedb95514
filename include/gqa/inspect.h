// Looking at a checkpoint without running it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gqa/config.h"
#include "gqa/progress.h"

namespace gqa {

struct Inspection {
  ModelConfig config;
  std::vector<std::string> dtypes;  ///< of the weights, as stored
  int64_t parameters = 0;
  int64_t weight_bytes = 0;
  int64_t kv_bytes_per_token = 0;  ///< with the default cache type
  /// Per layer: mean absolute cosine similarity between the K (V) weights of pairs of KV heads; NaN
  /// with one head.
  std::vector<double> k_similarity;
  std::vector<double> v_similarity;
};

/// Reads headers, and the K and V weights for the similarities. Throws Error (no_input, bad_data).
Inspection inspect(const std::filesystem::path& dir, const Progress& progress = {});

struct Verification {
  std::vector<std::string> checks;    ///< what was checked and found good, a line each
  std::vector<std::string> problems;  ///< empty: the folder is sound
};

/// Checks a model folder to the last byte: config, tensors and shapes, finite weights, tokenizer,
/// and, where a recipe is present, every file's SHA-256. Throws Error (no_input) where there is no
/// model: no folder, no config.json, no weights or a shard missing.
Verification verify(const std::filesystem::path& dir, const Progress& progress = {});

}  // namespace gqa
