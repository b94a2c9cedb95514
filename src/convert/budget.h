// Spending a budget of KV heads over layers.
#pragma once

#include <cstdint>
#include <vector>

namespace gqa {

/// A number of KV heads that a layer could have, and what it is predicted to lose.
struct HeadsOption {
  int64_t kv_heads = 0;
  double loss = 0;
};

/// Of every layer its options, fewest heads first.
using HeadsOptions = std::vector<std::vector<HeadsOption>>;

/// KV heads of every layer, `budget` in all at most, at the least sum of losses: dynamic
/// programming over layers and heads (the multiple-choice knapsack, exactly). Of equal sums the one
/// with the fewest heads. Empty where even the fewest heads of every layer are more than the
/// budget.
std::vector<int64_t> cheapest_heads(const HeadsOptions& layers, int64_t budget);

/// As many KV heads in every layer as the budget allows; empty where no number is an option of all
/// layers.
std::vector<int64_t> uniform_heads(const HeadsOptions& layers, int64_t budget);

/// The sum of losses of such a choice.
double total_loss(const HeadsOptions& layers, const std::vector<int64_t>& kv_heads);

}  // namespace gqa
