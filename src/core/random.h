// Random numbers that are the same on every machine.
#pragma once

#include <cstdint>
#include <random>

namespace gqa {

/// What random numbers are for: each use has its own stream.
enum class RandomUse : uint64_t {
  grouping = 1,
  merge = 2,
  search = 3,
  clusters = 4,
  text = 6,
  haystack = 7,
  bench = 8,
  refine = 9,
  learn = 10,
  learn_start = 11
};

/// The distributions of <random> are the implementation's choice; these are ours.
class Random {
 public:
  /// Streams of different seeds, uses and layers are independent of each other.
  Random(uint64_t seed, RandomUse use, int64_t layer);
  /// Uniform in [0, n); n is at least 1.
  uint64_t below(uint64_t n);
  /// Mean 0, variance 1 (Box and Muller 1958).
  double normal();
  double unit();  ///< uniform in (0, 1]

 private:
  std::mt19937_64 engine_;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace gqa
