// The groups that a budget of KV heads buys.
#pragma once

#include "convert/grouping.h"

namespace gqa {

/// Throws Error (usage) for a budget out of range, or options that do not go with one; what needs
/// no model is checked.
void check_budget(const ConvertOptions& options);

/// KV heads that the budget pays for. Throws Error (usage) where that is not one for each layer.
int64_t heads_of_budget(const ModelConfig& config, double budget);

/// As make_groups(), with options.budget in place of options.kv_heads: each layer has one of the
/// divisors of its own number, all layers together at most the budget's share of heads. Groups of
/// an earlier search stand in options.explicit_groups: then there is no search.
///
/// What a layer loses with as many heads is, with calibration, the KL divergence of the model in
/// which this layer alone is converted (as the options say, but no further than the outputs); the
/// cheapest sums of that, of its root and of its square, and as many heads in every layer, are then
/// converted whole, and the least KL divergence wins. Without calibration it is the share of energy
/// (HeadPrices), and the cheapest sum wins. As many heads in every layer win a tie.
std::vector<HeadGroups> budget_groups(const ModelConfig& config, const ConvertOptions& options,
                                      const WeightsToGroup& weights, const Progress& progress);

}  // namespace gqa
