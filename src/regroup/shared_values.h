// One value head for a group whose heads attend differently.
#pragma once

#include <functional>
#include <vector>

#include "regroup/averaged_moments.h"
#include "regroup/heads.h"

namespace gqa {

/// A value head [rank, inputs], and per query head of the group its output [width, rank].
struct SharedValue {
  Matrix value;
  std::vector<Matrix> outputs;
  double lost = 0;   ///< of the outputs' energy
  double total = 0;  ///< the outputs' energy
};

/// Of a query head, [inputs, inputs].
using HeadMoments = std::function<AveragedMoments::Map(int64_t q_head)>;

/// principal_values() with what each query head's attention averages: moments(h) = C_h = E[y y^T]
/// of y = sum over s of A_h(t, s) x_s. Values are mixed under C, the mean of the group's C_h, but
/// each head's weight in the mixture is that of what it puts out under its own C_h: with V whitened
/// under C, O is multiplied by (V C_h V^T)^1/2. Then each head's output is fitted to the mixture by
/// ridge regression under its own C_h. Exact for members that together span no more than `rank`
/// dimensions.
SharedValue shared_value(const Heads& heads, const std::vector<int64_t>& group,
                         const HeadMoments& moments, int64_t rank);

}  // namespace gqa
