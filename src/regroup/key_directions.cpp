#include "regroup/key_directions.h"

#include "regroup/decompositions.h"

namespace gqa {

Matrix principal_directions(const Matrix& moments) {
  const SymmetricEigen solver(moments);
  Matrix rows = solver.eigenvectors().transpose().colwise().reverse();
  for (int64_t r = 0; r < rows.rows(); ++r) {
    int64_t largest = 0;
    rows.row(r).cwiseAbs().maxCoeff(&largest);
    if (rows(r, largest) < 0) rows.row(r) *= -1.0;
  }
  return rows;
}

}  // namespace gqa
