// Blocks of keys and values, summed up.
#pragma once

#include <cstdint>
#include <span>

#include "approx/companion.h"

namespace gqa {

/// A summary of every complete block of a sequence.
class BlockSummaries {
 public:
  enum class Kind {
    /// Keys [2 * head_dim]: the largest and the smallest key of the block, dimension by dimension,
    /// in bf16 rounded outwards. With query [max(q, 0), min(q, 0)] that gives a score that no key
    /// of
    /// the block exceeds (Tang et al. 2024).
    bounds,
    /// Keys [head_dim] and values: their means; in f32. With log(block) added, the score of the
    /// mean
    /// is never above the log of the block's sum of exp(score) (Jensen), and equal to it where all
    /// keys score alike. (Adding the variance of the scores, as for normally distributed keys, was
    /// tried: it overshoots by far where keys vary much.)
    means
  };

  BlockSummaries(const KvShape& source, int64_t block, Kind kind);

  /// Those of the call's sequence, up to date.
  PackedKv update(const Call& call);

  /// Of a summary's key.
  int64_t key_dim() const { return kind_ == Kind::bounds ? 2 * head_dim_ : head_dim_; }
  /// query [key_dim] for the summaries of q [head_dim].
  void expand_query(std::span<const float> q, float* query) const;

  int64_t k_bytes() const { return companion_.k_bytes(); }
  int64_t memory_bytes() const { return companion_.memory_bytes(); }

 private:
  void sum_up(const float* k, const float* v, int64_t heads, float* key, float* value) const;

  Kind kind_;
  int64_t block_, head_dim_, v_head_dim_;
  Companion companion_;
};

}  // namespace gqa
