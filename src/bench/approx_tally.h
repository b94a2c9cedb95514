// Sums of what approximations have read.
#pragma once

#include <cstdint>

#include "gqa/approx.h"

namespace gqa::bench {

class ApproxTally {
 public:
  void add(const ApproxStats& stats);
  const ApproxStats& total() const { return total_; }
  ApproxShares shares() const { return shares_of(total_); }

 private:
  ApproxStats total_;
  double chosen_sum_ = 0;  ///< of means, as many as there are
  int64_t chosen_count_ = 0;
};

}  // namespace gqa::bench
