#include "regroup/merge_heads.h"

#include "core/fail.h"
#include "regroup/rotary_planes.h"

namespace gqa {

Heads merge_heads(const Heads& heads, const HeadGrams& grams, const HeadGroups& groups,
                  HeadMerge how, const std::vector<int64_t>& planes) {
  const bool aligned = how == HeadMerge::aligned;
  require(planes.empty() || !aligned, "values that are aligned keep all of their dimensions");
  Heads result = regrouped(heads, groups);
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto& group = groups[i];
    const auto g = static_cast<int64_t>(i);
    if (group.size() == 1) {  // to the bit
      result.k_of(g) = heads.k_of(group[0]);
    } else {
      apply(aligned ? aligned_keys(grams, group) : principal_keys(grams, group), heads, group, g,
            result);
    }
  }
  if (!planes.empty()) result = with_planes(result, planes);
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto& group = groups[i];
    const auto g = static_cast<int64_t>(i);
    if (group.size() == 1 && planes.empty()) {
      result.v_of(g) = heads.v_of(group[0]);
    } else {
      apply(
          aligned ? aligned_values(grams, group) : principal_values(grams, group, result.head_dim),
          heads, group, g, result);
    }
  }
  return result;
}

}  // namespace gqa
