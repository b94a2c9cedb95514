// Scores of far keys, computed for one query of a group and used by all.
#pragma once

#include <optional>
#include <vector>

#include "approx/block_summaries.h"
#include "approx/groups.h"
#include "approx/kept.h"
#include "approx/rows.h"
#include "approx/variant.h"

namespace gqa {

/// clustered:C[,PAGES] and dynamic:LOSS. Positions come in segments of 128. Keys of a token's own
/// segment are attended to exactly; for all before it, a token uses what its group's leader got (a
/// vector of values and an LSE for each head), and the two are merged by LSE. A leader is a query
/// of the same segment and KV head that came first: so nothing is taken from tokens behind.
/// Distances between queries count what they do to scores: each dimension weighs as much as the far
/// keys vary in it, which makes half the squared distance an estimate of the KL divergence between
/// the two attentions, in nats, summed over the heads of the group.
///
/// clustered: leaders come at an even pace, C a segment. dynamic: whoever is farther than LOSS, on
/// the mean over heads, from all leaders becomes one. With PAGES, the pages that bounds promise
/// most for the leader are left out of what it hands on, and every member attends to them exactly
/// (the improved form of Vyas et al. 2020, page by page).
class ClusteredVariant final : public Variant {
 public:
  ClusteredVariant(const Clustered& spec, const KvShape& shape);
  ClusteredVariant(const DynamicGroups& spec, const KvShape& shape);
  void attend(const Call& call, Tally& tally) override;
  int64_t memory_bytes() const override;

  static constexpr int64_t segment = 128;

 private:
  /// A KV head's groups in the current segment.
  struct HeadGroups {
    KeyMoments moments;
    std::vector<float> weight;
    Leaders leaders;
    std::vector<float> out;          ///< [leaders][heads][v_head_dim], of far keys
    std::vector<float> lse;          ///< [leaders][heads]
    std::vector<uint64_t> rescored;  ///< [leaders][far words]: pages left to members
  };
  struct State {
    int64_t segment = -1;
    int64_t next = 0;  ///< position: no token from here on has been seen
    std::vector<HeadGroups> heads;
  };
  struct Member {
    int64_t leader = 0;
    bool leads = false;
  };
  struct Work {
    std::vector<float> vector, query, queries, value;
    std::vector<int32_t> order;
    Scores scores;
  };

  void enter_segment(const Call& call, State& state, int64_t number);
  void group(const Call& call, State& state, int64_t t, int64_t n, std::vector<Member>& members);
  bool leads(const Leaders& leaders, const Leaders::Nearest& nearest, int64_t offset,
             int64_t heads) const;
  void choose_pages(const Call& call, State& state, int64_t kv_head, int64_t t, int64_t far_pages,
                    Work& w);
  void attend_far(const Call& call, State& state, int64_t t, int64_t n,
                  const std::vector<Member>& members);
  void attend_near(const Call& call, const State& state, int64_t t, int64_t n,
                   const std::vector<Member>& members);
  void put_together(const Call& call, const State& state, int64_t t, int64_t n,
                    const std::vector<Member>& members);
  void count(const Call& call, const State& state, int64_t t, int64_t n,
             const std::vector<Member>& members, Tally& tally) const;

  std::optional<int64_t> groups_;  ///< a segment
  double loss_ = 0;                ///< without groups_
  int64_t pages_ = 0;
  std::optional<BlockSummaries> bounds_;
  std::optional<PackedKv> bounds_view_;
  Kept<State> states_;
  std::vector<Work> work_;
  OutputRows near_, far_;
};

}  // namespace gqa
