#include "regroup/merge_heads.h"

namespace gqa {

Heads merge_heads(const Heads& heads, const HeadGrams& grams, const HeadGroups& groups,
                  HeadMerge how) {
  Heads result = regrouped(heads, groups);
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto& group = groups[i];
    const auto g = static_cast<int64_t>(i);
    if (group.size() == 1) {  // to the bit
      result.k_of(g) = heads.k_of(group[0]);
      result.v_of(g) = heads.v_of(group[0]);
      continue;
    }
    if (how == HeadMerge::aligned) {
      apply(aligned_keys(grams, group), heads, group, g, result);
      apply(aligned_values(grams, group), heads, group, g, result);
    } else {
      apply(principal_keys(grams, group), heads, group, g, result);
      apply(principal_values(grams, group), heads, group, g, result);
    }
  }
  return result;
}

}  // namespace gqa
