// How much each token of a text counts.
#pragma once

#include <vector>

#include "regroup/matrix.h"

namespace gqa {

/// A factor for each token's squared error. Empty: all count alike.
using TokenWeights = std::vector<float>;

/// What reads a hidden state norms it first: an error in it matters relative to its size. Most
/// tokens' are of a size, but in some models those of the first token and of a few others are up to
/// 200 times as large (massive activations, Sun et al. 2024), and squared errors would be theirs
/// alone. So an error counts as if its hidden state were at most four times as large as the median
/// one. Empty if none is larger. `squares`: of the hidden states.
TokenWeights weights_by_size(const std::vector<double>& squares);

/// Of each row, of a sum of matrices for one.
template <typename Derived>
std::vector<double> row_squares(const Eigen::MatrixBase<Derived>& rows) {
  std::vector<double> squares;
  for (Eigen::Index r = 0; r < rows.rows(); ++r) {
    squares.push_back(static_cast<double>(rows.row(r).squaredNorm()));
  }
  return squares;
}

/// The weights of rows [row, row + n).
TokenWeights slice(const TokenWeights& weights, int64_t row, int64_t n);

/// The sum of weight * square over rows.
double squared_norm(const RowsRef& rows, const TokenWeights& weights);

/// Row by row: rows *= weight, or its root.
void weigh(Eigen::Ref<Rows> rows, const TokenWeights& weights);
void weigh_by_roots(Eigen::Ref<Rows> rows, const TokenWeights& weights);

}  // namespace gqa
