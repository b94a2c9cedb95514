// Groupings that look at the heads.
#pragma once

#include "convert/grouping.h"

namespace gqa {

/// The groups that lose the least by what principal heads keep; pairs alone are priced where there
/// are more than 8 heads. With text, and as few heads, neighbours are another candidate for equal
/// groups, and what they make of the layer's output decides.
HeadGroups group_similar(const GroupingInput& in);

/// Learned from text by gradients, and held against the two above.
HeadGroups group_learned(const GroupingInput& in);

/// k-means over the heads' aligned similarity.
HeadGroups group_clusters(const GroupingInput& in);

/// Groups of unequal sizes that share importance out evenly.
HeadGroups group_by_importance(const GroupingInput& in);

}  // namespace gqa
