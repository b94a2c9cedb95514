// One key head for a group: which mixture of the members' keys, and what becomes of their queries.
#pragma once

#include "regroup/grams.h"

namespace gqa {

/// A shared key and its queries, per plane. Rotary embedding turns planes, so that complex factors
/// per plane are all that may be applied to a head: key' = sum over members a of
/// key(p, a) * key_a, and query_h' = query(p, h) * query_h.
struct KeyMix {
  ComplexMatrix key;    ///< [head_dim / 2, members]
  ComplexMatrix query;  ///< [head_dim / 2, query heads of the members, in their order]
};

/// The principal complex key of each plane, weighted by the energy of the queries that read it:
/// with z_a the members' keys and w_a^2 the energy of their queries, the top eigenvector u of
/// G_ab = w_a w_b E[z_a conj(z_b)] gives key' = sum conj(u_a) w_a z_a and query' = query *
/// conj(u_a) / w_a. Of all single keys it keeps the most of E|score|^2, taking queries as
/// independent of keys.
KeyMix principal_keys(const HeadGrams& grams, const std::vector<int64_t>& group);

/// The mean of the members' keys, each plane of unit energy, once they have been turned towards
/// each other (generalised Procrustes analysis, Gower 1975); scaled to unit energy again. Exact for
/// members that are multiples of each other in every plane.
KeyMix aligned_keys(const HeadGrams& grams, const std::vector<int64_t>& group);

/// The share of the score's energy that principal_keys() loses: lost and total.
struct Loss {
  double lost = 0;
  double total = 0;
};
Loss key_loss(const HeadGrams& grams, const std::vector<int64_t>& group);

/// Writes key head g of `result` (made by regrouped()) and turns its queries.
void apply(const KeyMix& mix, const Heads& source, const std::vector<int64_t>& group, int64_t g,
           Heads& result);

}  // namespace gqa
