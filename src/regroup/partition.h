// Parting heads into groups at the least cost.
#pragma once

#include <cstdint>
#include <functional>

#include "gqa/config.h"

namespace gqa {

/// What it costs that these heads (ascending) become one; at least 0.
using GroupCost = std::function<double(const std::vector<int64_t>& group)>;

struct PartitionOptions {
  int64_t heads = 0;   ///< to part
  int64_t groups = 0;  ///< wanted, at most as many as heads
  bool equal = true;   ///< groups of heads / groups heads each, which must divide; else of any size
  uint64_t seed = 0;   ///< of the search, where there is one
};

/// Canonical order: members ascending, groups by their first member.
HeadGroups canonical(HeadGroups groups);

/// The groups of the least total cost, in canonical order. Exact where all candidate groups can be
/// tried (dynamic programming over sets of heads: 16 heads in equal groups, 12 in any); for more
/// heads simulated annealing (Kirkpatrick et al. 1983) over moves and swaps, which gives the same
/// groups for the same seed. Each group's cost is asked for at most once. `interrupt` is called now
/// and then, and may throw.
HeadGroups cheapest_partition(const PartitionOptions& options, const GroupCost& cost,
                              const std::function<void()>& interrupt = {});

}  // namespace gqa
