// Numbers to compute with: their values matter to no time.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace gqa::bench {

/// n numbers in [-1, 1), the same every time.
inline std::vector<float> random_floats(int64_t n) {
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& x : values) x = uniform(random);
  return values;
}

}  // namespace gqa::bench
