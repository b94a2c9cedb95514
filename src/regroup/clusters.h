// Heads that are alike into groups.
#pragma once

#include <cstdint>

#include "gqa/config.h"
#include "regroup/matrix.h"

namespace gqa {

struct ClusterOptions {
  int64_t groups = 0;  ///< at most as many as heads
  bool equal =
      true;  ///< heads / groups heads each, which must divide; else of any size, none empty
  uint64_t seed = 0;
  int64_t layer = 0;  ///< each has random numbers of its own
};

/// Kernel k-means (Dhillon et al. 2004) over a similarity of n heads, [n, n], symmetric, 1 on the
/// diagonal and no more elsewhere: groups in canonical order that make
///
///     sum over groups g of  1 / |g| * sum over a, b in g of similarity(a, b)
///
/// large, the negated k-means loss where the similarity is an inner product. Seeds are drawn as
/// k-means++ does (Arthur and Vassilvitskii 2007) and heads join them, those first that have most
/// to lose by waiting; then single heads move and pairs swap, the best change first (Hartigan
/// 1975), until none helps. Each change is judged by the sum itself, so that the similarity need
/// not be positive semidefinite. The best of several starts, the same for the same seed.
HeadGroups cluster_heads(const Matrix& similarity, const ClusterOptions& options);

}  // namespace gqa
