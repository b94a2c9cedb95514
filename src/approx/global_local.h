// Exact attention nearby, summaries of what is far.
#pragma once

#include <vector>

#include "approx/block_summaries.h"
#include "approx/rows.h"
#include "approx/variant.h"

namespace gqa {

/// global-local:W,B. A token attends to all keys from the block of B on in which its window of W
/// begins; each block of B before counts as one key, its mean, with its mean value, and with the
/// weight of B such keys.
class GlobalLocalVariant final : public Variant {
 public:
  GlobalLocalVariant(const GlobalLocal& spec, const KvShape& shape);
  void attend(const Call& call, Tally& tally) override;
  int64_t memory_bytes() const override { return summaries_.memory_bytes(); }

 private:
  /// Summaries that the token at a position sees: [0, n).
  int64_t far_blocks(int64_t position) const {
    return std::max<int64_t>(0, position - window_ + 1) / block_;
  }
  void expand_queries(const Call& call, int64_t t, int64_t n);
  void attend_near(const Call& call, int64_t t, int64_t n);
  void attend_far(const Call& call, const PackedKv& summaries, int64_t t, int64_t n);

  int64_t window_, block_;
  BlockSummaries summaries_;
  std::vector<float> queries_;
  OutputRows near_, far_;
};

}  // namespace gqa
