#include "approx/principal.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace gqa {
namespace {

using Row = std::vector<double>;

double dot(const Row& a, const Row& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// Makes the rows orthonormal (modified Gram-Schmidt, twice over). A row that lies in the space of
/// those before it becomes the first axis that does not.
void orthonormalise(std::vector<Row>& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const double before = std::sqrt(dot(rows[i], rows[i]));
    size_t axis = 0;
    while (true) {
      for (int pass = 0; pass < 2; ++pass) {
        for (size_t j = 0; j < i; ++j) {
          const double share = dot(rows[i], rows[j]);
          for (size_t d = 0; d < rows[i].size(); ++d) rows[i][d] -= share * rows[j][d];
        }
      }
      const double norm = std::sqrt(dot(rows[i], rows[i]));
      if (norm > 1e-9 * std::max(axis > 0 ? 1.0 : before, 1e-300)) {
        for (double& x : rows[i]) x /= norm;
        break;
      }
      std::fill(rows[i].begin(), rows[i].end(), 0.0);
      rows[i][axis++] = 1.0;
    }
  }
}

}  // namespace

std::vector<float> principal_directions(const float* x, int64_t n, int64_t stride, int64_t dim,
                                        int64_t rank) {
  const auto size = static_cast<size_t>(dim);
  std::vector<Row> moments(size, Row(size, 0.0));
  for (int64_t i = 0; i < n; ++i) {
    for (size_t a = 0; a < size; ++a) {
      const double xa = x[i * stride + static_cast<int64_t>(a)];
      for (size_t b = 0; b <= a; ++b) {
        moments[a][b] += xa * static_cast<double>(x[i * stride + static_cast<int64_t>(b)]);
      }
    }
  }
  for (size_t a = 0; a < size; ++a) {
    for (size_t b = 0; b < a; ++b) moments[b][a] = moments[a][b];
  }
  // Rows of the moments themselves, of the dimensions with most energy: a start that is seldom bad.
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return moments[a][a] > moments[b][b]; });
  std::vector<Row> rows;
  for (int64_t r = 0; r < rank; ++r) rows.push_back(moments[order[static_cast<size_t>(r)]]);
  orthonormalise(rows);
  for (int pass = 0; pass < 32; ++pass) {
    for (Row& row : rows) {
      Row next(size);
      for (size_t a = 0; a < size; ++a) next[a] = dot(moments[a], row);
      row = std::move(next);
    }
    orthonormalise(rows);
  }
  std::vector<float> result;
  for (const Row& row : rows) {
    for (const double value : row) result.push_back(static_cast<float>(value));
  }
  return result;
}

}  // namespace gqa
