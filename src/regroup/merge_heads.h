// Heads to fewer heads by their inner products alone.
#pragma once

#include "regroup/keys.h"
#include "regroup/values.h"

namespace gqa {

enum class HeadMerge {
  aligned,    ///< aligned_keys(), aligned_values()
  principal,  ///< principal_keys(), principal_values()
};

/// The layer with one KV head a group, merged as `how` says. With `planes` (of principal heads
/// alone): keys have these rotary planes alone, and values as many dimensions.
Heads merge_heads(const Heads& heads, const HeadGrams& grams, const HeadGroups& groups,
                  HeadMerge how, const std::vector<int64_t>& planes = {});

}  // namespace gqa
