// Learning by gradients: steps, and how long they are.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace gqa {

/// Numbers that are learned, in parts: matrices, say.
using Parts = std::vector<std::span<float>>;
using ConstParts = std::vector<std::span<const float>>;

double root_mean_square(std::span<const float> part);

/// Adam (Kingma and Ba 2015) with its usual decays, 0.9 and 0.999.
class Adam {
 public:
  /// `scales`: of each part's steps, `sizes` the numbers in it.
  Adam(std::vector<float> scales, const std::vector<size_t>& sizes);

  /// weights -= rate * scale * (mean gradient / root mean square gradient), element by element.
  void step(const ConstParts& gradient, double rate, const Parts& weights);

 private:
  std::vector<float> scales_;
  std::vector<std::vector<float>> first_, second_;  ///< running means of gradients, their squares
  int steps_ = 0;
};

/// Step `step` (from 0) of `steps`: rises to `rate` within the first few steps, then falls to 0 as
/// a cosine does.
double cosine_rate(double rate, int step, int steps);

}  // namespace gqa
