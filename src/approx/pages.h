// Attention to a few pages of 64 keys, chosen for each token and KV head.
#pragma once

#include <vector>

#include "approx/block_summaries.h"
#include "approx/scores.h"
#include "approx/selection.h"

namespace gqa {

/// topk:P. The page of the token itself, the one before it and the first page (where attention
/// sinks lie, Xiao et al. 2023) are always chosen; of the others those whose keys can score highest
/// by their bounds (Tang et al. 2024), for any head of the group.
class TopPagesVariant final : public Choosing {
 public:
  TopPagesVariant(const TopPages& spec, const KvShape& shape);
  int64_t memory_bytes() const override { return summaries_.memory_bytes(); }

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

  int64_t pages_;
  BlockSummaries summaries_;
  std::vector<Work> work_;
  std::optional<PackedKv> view_;
};

/// topp:MASS. The same pages always; then, in order of the attention that their mean keys promise,
/// as many as hold MASS of it for every head of the group. The token's own page is scored
/// to know what it holds.
class TopMassVariant final : public Choosing {
 public:
  TopMassVariant(const TopMass& spec, const KvShape& shape);
  int64_t memory_bytes() const override { return summaries_.memory_bytes(); }

 private:
  struct Work {
    std::vector<float> query, queries, value, last;
    std::vector<double> share;
    std::vector<int32_t> order;
    Scores scores, own;
  };

  void prepare(const Call& call) override;
  void choose(const Call& call, int64_t kv_head, int64_t t, int64_t n, int thread,
              Selection& selection, int64_t* chosen) override;
  double choice_bytes(const Call& call, int64_t position) const override;
  int64_t choose_one(int64_t heads, int64_t row, int64_t pages, Work& w, uint64_t* words) const;

  double mass_;
  BlockSummaries summaries_;
  std::vector<Work> work_;
  std::optional<PackedKv> view_;
};

/// queries [n * heads][key_dim] of tokens [t, t + n) for summaries.
void expand_queries(const Call& call, const BlockSummaries& summaries, int64_t kv_head, int64_t t,
                    int64_t n, std::vector<float>& query, std::vector<float>& queries);

}  // namespace gqa
