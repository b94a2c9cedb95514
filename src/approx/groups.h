// Groups of query tokens that lie close together: which there are, and who belongs to which.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "approx/call.h"
#include "approx/scores.h"

namespace gqa {

/// Means and variances of the keys of a KV head, dimension by dimension, as far as they have been
/// added.
class KeyMoments {
 public:
  /// k: n vectors [dim], `stride` floats apart.
  void add(const float* k, int64_t n, int64_t stride, int64_t dim);
  /// weight [dim] = scale * standard deviation: what a difference of queries counts for.
  void weights(float scale, std::span<float> weight) const;
  int64_t count() const { return count_; }

 private:
  int64_t count_ = 0;
  std::vector<double> sum_, squares_;
};

/// The leader algorithm (Hartigan 1975): vectors come one after the other; each joins the nearest
/// leader before it or becomes one itself. So who leads whom depends on the past alone.
class Leaders {
 public:
  explicit Leaders(int64_t dim = 0) : dim_(dim) {}

  int64_t count() const { return count_; }
  struct Nearest {
    int64_t leader = -1;         ///< -1: there is none
    double distance = INFINITY;  ///< squared
  };
  /// x [dim]
  Nearest nearest(const kernels::Table& kernels, const float* x);
  /// Returns its number.
  int64_t add(const float* x);
  int64_t memory_bytes() const;

 private:
  double square(const float* x) const;

  int64_t dim_;
  int64_t count_ = 0;
  std::vector<float> blocks_;  ///< [count / 64][dim][64], as the score kernel takes keys
  std::vector<double> squares_;
};

}  // namespace gqa
