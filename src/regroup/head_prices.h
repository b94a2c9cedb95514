// What groups would lose, of weights alone.
#pragma once

#include "core/thread_pool.h"
#include "regroup/grams.h"

namespace gqa {

/// Layers of up to so many KV heads can have all groups priced. The price of a group of m heads
/// takes the eigenvalues of a matrix of m * head_dim rows: with 8 heads of size 128 these are 98
/// matrices of up to 512 rows, with 16 among others 12,870 of 1024.
inline constexpr int64_t most_priced_heads = 8;

/// What making one head of a group costs: the share of all scores' energy that principal_keys()
/// loses, plus the share of all outputs' energy that principal_values() loses.
class HeadPrices {
 public:
  explicit HeadPrices(const HeadGrams& grams);
  double operator()(const std::vector<int64_t>& group) const;

 private:
  const HeadGrams& grams_;
  double scores_ = 0;   ///< energy of all
  double outputs_ = 0;  ///< energy of all
};

/// The same of pairs, and an estimate for larger groups: 2 / |g| times the sum over its pairs,
/// which is right for heads that are alike and for heads that share nothing. For layers with so
/// many heads that larger groups cannot all be asked for.
class PairPrices {
 public:
  PairPrices(const HeadGrams& grams, ThreadPool& pool);
  double operator()(const std::vector<int64_t>& group) const;

 private:
  Matrix pairs_;  ///< [heads, heads]
};

}  // namespace gqa
