// The ceiling of what is bound by arithmetic: the best SGEMM at hand.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/thread_pool.h"

namespace gqa::bench {

/// c = a b, all 2048 x 2048 f32, by oneDNN.
class Sgemm {
 public:
  static constexpr int64_t size = 2048;
  static constexpr double flop = 2.0 * size * size * size;

  Sgemm();
  /// Each thread computes a tile of c by itself: a team of oneDNN's own would be other threads,
  /// which would go on spinning on the cores of whatever is timed next.
  void run(ThreadPool& pool);

 private:
  std::vector<float> a_, b_, c_;
};

/// Rows and columns of the squarest grid of n tiles, rows first: 6 -> {3, 2}.
std::pair<int, int> tile_grid(int n);

}  // namespace gqa::bench
