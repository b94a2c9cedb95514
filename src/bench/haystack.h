// A generated context that hides needles: keys, values, and queries that look for them.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/rotation.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "gqa/approx.h"
#include "gqa/recall.h"

namespace gqa::bench {

/// One context of a RecallBench. Numbers are drawn for each KV head on its own.
class Haystack {
 public:
  static constexpr int64_t codes = 64;

  Haystack(const RecallBench& bench, int64_t trial);

  /// Keys and values of the next n tokens, n <= what is left.
  const KvRows& tokens(ThreadPool& pool, int64_t n);

  /// The query of the next token: [q_heads, head_dim].
  const std::vector<float>& query(ThreadPool& pool);
  /// The needle that a query head looked for with the last query.
  int64_t target(int64_t q_head) const;

  /// Where needle m of a KV head is, and its code: [head_dim].
  int64_t position(int64_t kv_head, int64_t m) const { return heads_[kv_head].positions[m]; }
  const float* code(int64_t kv_head, int64_t m) const;
  /// The code that is nearest to an output of this KV head: [head_dim].
  const float* nearest(int64_t kv_head, const float* output) const;

  /// Those that the keys were made along.
  KeyDirections directions() const;

 private:
  struct Head {
    Random random;  ///< of keys and values
    Random queries;
    std::vector<float> axes = {};         ///< [head_dim, head_dim], orthonormal
    std::vector<float> walk = {};         ///< [leading], of keys
    std::vector<float> values = {};       ///< [head_dim], the walk of values
    std::vector<float> q_walk = {};       ///< [group, leading]
    std::vector<int64_t> positions = {};  ///< [needles]
    std::vector<int32_t> needle_at = {};  ///< [kv_len], -1 where there is none
    std::vector<int64_t> code = {};       ///< [needles]
    std::vector<float> needles = {};      ///< [needles, head_dim], directions of norm 1
    std::vector<float> codes = {};        ///< [codes, head_dim], of norm sqrt(head_dim)
    std::vector<int64_t> targets = {};    ///< [needles]: head i of the group looks for the i-th
  };

  Head make_head(int64_t trial, int64_t g) const;
  void hide_needles(Head& head) const;
  void next_token(Head& head, int64_t at, float* k, float* v) const;
  void next_queries(Head& head, float* q) const;
  float aim() const;
  float sink() const;

  const RecallBench& bench_;
  int64_t leading_;  ///< directions that hold most energy
  float aim_;        ///< how far queries point to their needle
  float sink_;       ///< and to the first token
  int64_t at_ = 0;
  int64_t asked_ = 0;
  std::vector<Head> heads_;
  KvRows rows_;
  std::vector<float> q_;
};

}  // namespace gqa::bench
