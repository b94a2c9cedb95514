// Looking at a checkpoint without running it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gqa/config.h"
#include "gqa/progress.h"

namespace gqa {
#pragma GCC visibility push(default)

struct InspectOptions {
  /// Fills Inspection::aligned. That reads Q and O as well; for a model of 7B it takes seconds a
  /// layer, and memory for about twice one layer's attention weights in f64.
  bool similarity = false;
};

/// Groups of equal size for one number of KV heads.
struct SuggestedGroups {
  HeadGroups groups;
  /// Mean of HeadSimilarity::joint over pairs of heads that share a group: 1, merging them can be
  /// exact.
  double similarity = 0;
};

/// How alike a layer's n KV heads are, whatever basis each is written in. A change of a head that
/// leaves what it computes as it is (a complex factor for each plane of its keys and queries, an
/// invertible map between its values and outputs) does not change these figures. Inputs are taken
/// to vary as the weights of the norm before them say. [n, n] each, rows one after the other;
/// symmetric, 1 on the diagonal, from 0 to 1 elsewhere.
struct HeadSimilarity {
  int64_t kv_heads = 0;  ///< n
  /// Mean |correlation| of the keys' planes, weighted by the energy of the scores that both give.
  std::vector<double> keys;
  /// Mean canonical correlation of the values: 1, they span the same space.
  std::vector<double> values;
  std::vector<double> joint;  ///< mean of both
  /// For every number of groups of equal size from 1 to n / 2, ascending: for up to 8 heads those
  /// that lose the least energy of scores and outputs when each group becomes the best single head
  /// (all are tried); for more, k-means clusters of `joint`.
  std::vector<SuggestedGroups> suggested;
};

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
  std::vector<HeadSimilarity> aligned;  ///< per layer, if InspectOptions::similarity asks for it
};

/// Reads headers, and the K and V weights for the similarities. Throws Error (no_input, bad_data).
Inspection inspect(const std::filesystem::path& dir, const InspectOptions& options = {},
                   const Progress& progress = {});

struct Verification {
  std::vector<std::string> checks;    ///< what was checked and found good, a line each
  std::vector<std::string> problems;  ///< empty: the folder is sound
};

/// Checks a model folder to the last byte: config, tensors and shapes, finite weights, tokenizer,
/// and, where a recipe is present, every file's SHA-256. Throws Error (no_input) where there is no
/// model: no folder, no config.json, no weights or a shard missing.
Verification verify(const std::filesystem::path& dir, const Progress& progress = {});

#pragma GCC visibility pop
}  // namespace gqa
