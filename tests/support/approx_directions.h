// Random directions of the key space.
#pragma once

#include <cmath>
#include <numeric>
#include <vector>

#include "gqa/approx.h"
#include "support/random_array.h"

namespace gqa::test {

/// Orthonormal directions of one layer, which differ from KV head to KV head.
inline KeyDirections random_directions(Random& random, int64_t heads, int64_t dim) {
  std::normal_distribution<double> normal;
  const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  };
  std::vector<float> layer;
  for (int64_t g = 0; g < heads; ++g) {
    std::vector<std::vector<double>> rows;
    for (int64_t r = 0; r < dim; ++r) {
      std::vector<double> row(static_cast<size_t>(dim));
      for (double& x : row) x = normal(random);
      for (int pass = 0; pass < 2; ++pass) {
        for (const auto& other : rows) {
          const double share = dot(row, other);
          for (size_t d = 0; d < row.size(); ++d) row[d] -= share * other[d];
        }
      }
      const double norm = std::sqrt(dot(row, row));
      for (double& x : row) x /= norm;
      for (const double x : row) layer.push_back(static_cast<float>(x));
      rows.push_back(std::move(row));
    }
  }
  return {{std::move(layer)}};
}

}  // namespace gqa::test
