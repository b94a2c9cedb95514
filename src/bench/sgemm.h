// The ceiling of what is bound by arithmetic: the best SGEMM at hand.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/thread_pool.h"

namespace gqa::bench {

/// c = a b, all [size, size] of f32, by oneDNN.
class Sgemm {
 public:
  /// Throws Error (usage) where there are fewer rows than threads.
  Sgemm(const ThreadPool& pool, int64_t size);
  /// Each thread computes a tile of c by itself: a team of oneDNN's own would be other threads,
  /// which would go on spinning on the cores of whatever is timed next.
  void run(ThreadPool& pool);

  int64_t size() const { return size_; }
  /// Operations of a run.
  double flop() const;

 private:
  int64_t size_;
  std::vector<float> a_, b_, c_;
};

/// Rows and columns of the squarest grid of n tiles, rows first: 6 -> {3, 2}.
std::pair<int, int> tile_grid(int n);

}  // namespace gqa::bench
