// Heads to fewer heads by their inner products alone.
#pragma once

#include "regroup/keys.h"
#include "regroup/values.h"

namespace gqa {

enum class HeadMerge {
  aligned,    ///< aligned_keys(), aligned_values()
  principal,  ///< principal_keys(), principal_values()
};

/// The layer with one KV head a group, merged as `how` says.
Heads merge_heads(const Heads& heads, const HeadGrams& grams, const HeadGroups& groups,
                  HeadMerge how);

/// What making one head of a group costs: the share of all scores' energy that principal_keys()
/// loses, plus the share of all outputs' energy that principal_values() loses.
class HeadPrices {
 public:
  explicit HeadPrices(const HeadGrams& grams);
  double operator()(const std::vector<int64_t>& group) const;

 private:
  const HeadGrams& grams_;
  double scores_ = 0;   ///< energy of all
  double outputs_ = 0;  ///< energy of all
};

}  // namespace gqa
