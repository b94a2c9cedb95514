// Groups whose sizes follow how much their heads matter.
#pragma once

#include "regroup/grams.h"

namespace gqa {

/// How much each KV head matters: the energy of all scores that its key gives, summed over planes
/// (score_energy()). No change of basis changes it, as the norm of a key's weights alone would.
Vector importance(const HeadGrams& grams);

/// Groups of unequal sizes that share importance out evenly, so that heads that matter share their
/// KV head with few others, and many that matter little share one. Khan et al. 2024 (key-driven
/// grouped-query attention) let KV heads have query heads in proportion to their keys' norms; here
/// the KV heads are yet to be made, one a group, all of the same size, so that each should have the
/// same importance to carry. Heads go in descending order to the group that carries least (longest
/// processing time first, Graham 1969): the most that one carries is then at most
/// 4 / 3 - 1 / (3 n_groups) of the least that is possible. No group is empty; canonical order.
HeadGroups key_driven_groups(const HeadGrams& grams, int64_t n_groups);

}  // namespace gqa
