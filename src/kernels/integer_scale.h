// The step of numbers that are rounded to integers.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace gqa::kernels {

/// The step of a row whose largest magnitude is `most`, which becomes the integer `largest`; 0, and
/// with it all integers, where it would not be normal; NaN where `most` is not finite.
inline float integer_scale(float most, int32_t largest) {
  if (!std::isfinite(most)) return std::numeric_limits<float>::quiet_NaN();
  const float scale = most / static_cast<float>(largest);
  return scale < std::numeric_limits<float>::min() ? 0.0f : scale;
}

}  // namespace gqa::kernels
