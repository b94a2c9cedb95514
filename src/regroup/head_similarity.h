// How alike KV heads are once each is written in the basis that suits the other best.
#pragma once

#include "regroup/grams.h"

namespace gqa {

/// Of n KV heads, [n, n] each: symmetric, 1 on the diagonal, from 0 to 1 elsewhere. No change of a
/// head's basis (a complex factor for each plane of a key, an invertible map of a value) changes
/// any of them. They are no inner products: none need be positive semidefinite.
struct AlignedSimilarity {
  Matrix keys;
  Matrix values;
  Matrix joint;  ///< mean of both
};

/// [head_dim / 2, n]: w_a^2 E|z_a|^2 of each plane, the energy of all scores that head a's key
/// gives its queries (w_a^2, see query_weight()), taking queries as independent of keys.
Matrix score_energy(const HeadGrams& grams);

/// With s(p) = sqrt(e_a(p) e_b(p)) of the heads' score energies e, in plane p,
///
///     sum_p s(p) |E[z_a conj(z_b)]| / sqrt(E|z_a|^2 E|z_b|^2)  /  sum_p s(p)
///
/// the correlation of the planes' complex keys, each pair turned towards each other, where scores
/// come from. 1: in every plane that both score with, one key is a multiple of the other. 0 for
/// heads that have no such plane.
Matrix key_similarity(const HeadGrams& grams);

/// The sum of the canonical correlations (Hotelling 1936) of two heads' values, that is, the
/// nuclear norm of their cross-moments once each has unit moments; divided by head_dim, or where
/// values span less by the geometric mean of what both span. 1: they span the same space. 0 for a
/// head that is zero.
Matrix value_similarity(const HeadGrams& grams);

AlignedSimilarity aligned_similarity(const HeadGrams& grams);

}  // namespace gqa
