// Sums of what approximations have read.
#pragma once

#include <cstdint>
#include <optional>

#include "gqa/approx.h"
#include "gqa/mask.h"

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

/// What a call of attend() with `mask` reads, where `model` is what the model's own mask allows.
/// token_bytes: of the key and the value of a KV head.
ApproxStats mask_stats(const Mask& mask, const Mask& model, int64_t q_len, int64_t kv_len,
                       int64_t kv_heads, int64_t token_bytes);

}  // namespace gqa::bench
