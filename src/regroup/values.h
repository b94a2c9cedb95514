// One value head for a group: which map of the members' values, and what becomes of their outputs.
#pragma once

#include "regroup/grams.h"
#include "regroup/keys.h"

namespace gqa {

/// A shared value and its outputs. Nothing stands between values and outputs but a sum, so that any
/// linear map may be applied to a head: value' = sum over members a of value[a] V_a, and
/// O_h' = O_h output[h].
struct ValueMix {
  std::vector<Matrix> value;   ///< per member, [rank, head_dim]
  std::vector<Matrix> output;  ///< per query head of the members, in their order, the transpose
};

/// Per member the map [rank, head_dim] of the value of this rank that keeps the most of
/// sum_a |roots[a] V_a x|^2; `values` [members * head_dim, members * head_dim]: V_a C V_b^T. The
/// mixture has unit moments under C.
std::vector<Matrix> principal_mixture(const Matrix& values, const std::vector<Matrix>& roots,
                                      int64_t rank);

/// The value of a rank (head_dim, or less) that all members share at the least loss of what they
/// put out: the top eigenvectors of sum_a B_a B_a^T, B_a = C^1/2 V_a^T O_a^T, with outputs fitted
/// to it by least squares. Exact for members that span the same space.
ValueMix principal_values(const HeadGrams& grams, const std::vector<int64_t>& group, int64_t rank);

/// The mean of the members' values, in bases in which each has unit moments, once they have been
/// turned towards each other (generalised Procrustes analysis, Gower 1975); scaled to the mean
/// energy of the members. Exact for members that span the same space.
ValueMix aligned_values(const HeadGrams& grams, const std::vector<int64_t>& group);

/// What principal_values() loses of the outputs' energy.
Loss value_loss(const HeadGrams& grams, const std::vector<int64_t>& group);

/// Writes value head g of `result`, whose head_dim is the mix's rank, and its outputs.
void apply(const ValueMix& mix, const Heads& source, const std::vector<int64_t>& group, int64_t g,
           Heads& result);

/// The map T after which what a head's values span has unit moments, T V C V^T T^T = 1: heads that
/// span the same space are then rotations of each other, whatever reads them. `moments`: V C V^T.
struct Whitening {
  Matrix map;
  Matrix inverse;    ///< of the map, on what is spanned
  int64_t rank = 0;  ///< of what is spanned
};
Whitening whiten(const Matrix& moments);

/// R with R^T R = m, for m symmetric and not negative; works for singular m.
Matrix square_root(const Matrix& m);

}  // namespace gqa
