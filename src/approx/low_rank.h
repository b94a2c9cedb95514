// Attention to a few keys, chosen by their scores in a few principal directions.
#pragma once

#include <optional>
#include <vector>

#include "approx/companion.h"
#include "approx/kept.h"
#include "approx/scores.h"
#include "approx/selection.h"

namespace gqa {

/// lowrank:R,KEYS (Singhania et al. 2024). Keys are kept a second time as R numbers, their shares
/// in the R directions of most energy of their KV head; the KEYS that score highest there, for any
/// head of the group, are attended to exactly, the token's own among them. Without stored
/// directions, those of the sequence's first 256 keys serve what comes after them, and tokens
/// before are attended to exactly. With R = head_dim the keys themselves are scored.
class LowRankVariant final : public Choosing {
 public:
  LowRankVariant(const LowRank& spec, const KvShape& shape, KeyDirections directions);
  int64_t memory_bytes() const override;

 private:
  struct Work {
    std::vector<float> query, queries, value;
    std::vector<int32_t> order;
    Scores scores;
  };

  void prepare(const Call& call) override;
  void choose(const Call& call, int64_t kv_head, int64_t t, int64_t n, int thread,
              Selection& selection, int64_t* chosen) override;
  double choice_bytes(const Call& call, int64_t position) const override;

  bool whole() const { return rank_ == head_dim_; }
  /// Tokens before this position see all keys.
  int64_t first_choice() const;
  const float* directions_of(const Call& call);
  void project_keys(const Call& call, const float* directions);

  int64_t rank_, head_dim_, keys_;
  KeyDirections stored_;
  Kept<std::vector<float>> own_;  ///< [kv_heads][rank][head_dim]; empty: not known yet
  std::optional<Companion> projected_;
  std::vector<Work> work_;
  std::optional<PackedKv> view_;
  const float* directions_ = nullptr;  ///< of the call: [kv_heads], as far apart as step_ says
  int64_t step_ = 0;
};

}  // namespace gqa
