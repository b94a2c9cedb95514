// How the KV heads of a group become one.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "gqa/convert.h"
#include "regroup/heads.h"

namespace gqa {

/// What a merge sees of one layer: the source's projections, all of them finite.
struct MergeInput {
  const ModelConfig& config;  ///< of the source
  int64_t layer = 0;
  const HeadGroups& groups;
  uint64_t seed = 0;
  AttentionTensors tensors;
  const Tensor& norm;                ///< weights of the norm before attention, [width]
  std::vector<int64_t> planes = {};  ///< that keys keep, see ConvertPlan; of `pca` alone
};

/// The layer's new projections, one KV head a group, query heads in the order of the groups; dense
/// and not rounded yet. Biases are empty where the source has none; q, q_bias and o, too, where a
/// merge leaves them as they are.
struct MergedLayer {
  std::vector<double> q, q_bias, k, k_bias, v, v_bias, o;
};

struct MergeMethod {
  std::string_view name;
  std::string_view summary;   ///< for the model card: "the mean of its group"
  bool keeps_queries = true;  ///< q and o move with their heads and do not change otherwise
  MergedLayer (*merge)(const MergeInput&);
};

std::span<const MergeMethod> merge_methods();
/// Throws Error (usage) where there is none of that name.
const MergeMethod& find_merge(std::string_view name);

}  // namespace gqa
