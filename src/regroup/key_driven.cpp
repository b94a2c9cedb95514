#include "regroup/key_driven.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "regroup/head_similarity.h"
#include "regroup/partition.h"

namespace gqa {

Vector importance(const HeadGrams& grams) {
  return score_energy(grams).colwise().sum().transpose();
}

HeadGroups key_driven_groups(const HeadGrams& grams, int64_t n_groups) {
  const Vector matters = importance(grams);
  std::vector<int64_t> order(static_cast<size_t>(grams.kv_heads()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return matters[a] > matters[b]; });
  HeadGroups groups(static_cast<size_t>(n_groups));
  std::vector<std::pair<double, size_t>> loads(groups.size());  // importance, members
  for (const int64_t head : order) {
    // Of groups that carry as much the one with fewer members: heads that matter nothing leave no
    // group empty either.
    const auto least = std::ranges::min_element(loads);
    least->first += matters[head];
    ++least->second;
    groups[static_cast<size_t>(least - loads.begin())].push_back(head);
  }
  return canonical(std::move(groups));
}

}  // namespace gqa
