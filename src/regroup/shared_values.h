// One value head for a group whose heads attend differently.
#pragma once

#include "regroup/heads.h"

namespace gqa {

/// A value head [head_dim, inputs], and per query head of the group its output [width, head_dim].
struct SharedValue {
  Matrix value;
  std::vector<Matrix> outputs;
  double lost = 0;   ///< of the outputs' energy
  double total = 0;  ///< the outputs' energy
};

/// principal_values() with what each query head's attention averages: moments[h] = E[y y^T] of
/// y = sum over s of A_h(t, s) x_s. With C their mean over the group, the top head_dim eigenvectors
/// R of sum_h C^-1/2 C_h V^T O_h^T O_h V C_h C^-1/2 give the value R^T C^-1/2; then each head's
/// output is fitted to it by ridge regression under its own C_h.
SharedValue shared_value(const Heads& heads, const std::vector<int64_t>& group,
                         const std::vector<Matrix>& moments);

}  // namespace gqa
