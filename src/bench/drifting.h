// Vectors that change slowly from token to token, with a few directions that hold most of their
// energy: what approximations of attention count on in the keys of trained models.
#pragma once

#include <cstdint>
#include <vector>

#include "core/random.h"
#include "core/thread_pool.h"

namespace gqa::bench {

enum class Energy {
  even,    ///< the same in every dimension
  leading  ///< falls from the first dimension to the last
};

/// A random walk (remembered for some 30 tokens) plus noise in each dimension; the mean square of
/// an element is scale^2.
class DriftingRows {
 public:
  /// Different streams are independent of each other.
  DriftingRows(int64_t stream, int64_t heads, int64_t dim, Energy energy, float scale = 1.0f);
  /// The next n tokens: [n, heads, dim].
  void next(ThreadPool& pool, int64_t n, float* rows);

 private:
  int64_t dim_;
  std::vector<Random> random_;  ///< [heads]
  std::vector<float> scales_;   ///< [dim]
  std::vector<float> walk_;     ///< [heads, dim]
};

}  // namespace gqa::bench
