#include "regroup/token_weights.h"

#include <algorithm>
#include <cmath>

#include "regroup/products.h"

namespace gqa {

TokenWeights weights_by_size(const std::vector<double>& squares) {
  constexpr double most = 4 * 4;  // of a square, in medians
  if (squares.empty()) return {};
  std::vector<double> ordered = squares;
  const auto middle = ordered.begin() + std::ssize(ordered) / 2;
  std::ranges::nth_element(ordered, middle);
  const double limit = most * *middle;
  if (!(limit > 0) || std::ranges::none_of(squares, [&](double x) { return x > limit; })) return {};
  TokenWeights weights;
  for (const double x : squares) weights.push_back(static_cast<float>(limit / std::max(x, limit)));
  return weights;
}

TokenWeights slice(const TokenWeights& weights, int64_t row, int64_t n) {
  if (weights.empty()) return {};
  return {weights.begin() + row, weights.begin() + row + n};
}

double squared_norm(const RowsRef& rows, const TokenWeights& weights) {
  if (weights.empty()) return squared_norm(rows);
  double sum = 0;
  for (int64_t r = 0; r < rows.rows(); ++r) {
    sum += static_cast<double>(weights[static_cast<size_t>(r)]) *
           static_cast<double>(rows.row(r).squaredNorm());
  }
  return sum;
}

void weigh(Eigen::Ref<Rows> rows, const TokenWeights& weights) {
  for (size_t r = 0; r < weights.size(); ++r) rows.row(static_cast<int64_t>(r)) *= weights[r];
}

void weigh_by_roots(Eigen::Ref<Rows> rows, const TokenWeights& weights) {
  for (size_t r = 0; r < weights.size(); ++r) {
    rows.row(static_cast<int64_t>(r)) *= std::sqrt(weights[r]);
  }
}

}  // namespace gqa
