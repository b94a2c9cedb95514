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

HeadPrices::HeadPrices(const HeadGrams& grams) : grams_(grams) {
  for (int64_t g = 0; g < grams.kv_heads(); ++g) {
    scores_ += key_loss(grams, {g}).total;
    outputs_ += value_loss(grams, {g}).total;
  }
}

double HeadPrices::operator()(const std::vector<int64_t>& group) const {
  const auto share = [](double lost, double total) { return total > 0 ? lost / total : 0.0; };
  return share(key_loss(grams_, group).lost, scores_) +
         share(value_loss(grams_, group).lost, outputs_);
}

}  // namespace gqa
