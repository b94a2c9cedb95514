// Merges that need heads as matrices: they change queries and outputs, too.
#pragma once

#include "convert/merge.h"
#include "regroup/merge_heads.h"

namespace gqa {

/// See HeadMerge.
MergedLayer merge_aligned(const MergeInput& in);
MergedLayer merge_principal(const MergeInput& in);

/// Memory that these take for a layer with as many groups, beside the source's.
int64_t merge_matrices_bytes(const ModelConfig& config, int64_t layer, int64_t groups);

/// The layer as its tensors hold it.
MergedLayer merged_layer(Heads heads, const ModelConfig& config);
/// The inverse: `source`, a layer of the model, regrouped, with the projections of `merged`.
/// `planes`: that keys keep; empty: all.
Heads heads_of(const MergedLayer& merged, const Heads& source, const HeadGroups& groups,
               const std::vector<int64_t>& planes);
/// `heads` with the keys and values of a merge that keeps queries.
Heads with_merged(Heads heads, const MergedLayer& merged);

}  // namespace gqa
