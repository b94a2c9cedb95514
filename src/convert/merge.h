// How the KV heads of a group become one.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "gqa/convert.h"
#include "io/checkpoint.h"

namespace gqa {

/// What a merge sees of one layer: the source's projections, all of them finite.
struct MergeInput {
  const ModelConfig& config;  ///< of the source
  int64_t layer = 0;
  const HeadGroups& groups;
  uint64_t seed = 0;
  const Tensor* k = nullptr;       ///< [kv_heads * head_dim, width]
  const Tensor* v = nullptr;       ///< the same
  const Tensor* k_bias = nullptr;  ///< [kv_heads * head_dim], or null
  const Tensor* v_bias = nullptr;  ///< the same
};

/// The layer's new projections, one head a group, dense and not rounded yet. Biases are empty where
/// the source has none.
struct MergedLayer {
  std::vector<double> k, v, k_bias, v_bias;
};

struct MergeMethod {
  std::string_view name;
  std::string_view summary;  ///< for the model card: "the mean of its group"
  MergedLayer (*merge)(const MergeInput&);
};

std::span<const MergeMethod> merge_methods();
/// Throws Error (usage) where there is none of that name.
const MergeMethod& find_merge(std::string_view name);

}  // namespace gqa
