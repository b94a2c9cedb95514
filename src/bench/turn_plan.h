// Where the calls of a turn take place, so that all that comes round now and then is in their mean.
#pragma once

#include <cstdint>

#include "gqa/bench.h"

namespace gqa::bench {

/// The calls of a turn go round the sequences; each sequence takes some consecutive tokens, and
/// together they take every position of a period once.
struct TurnPlan {
  int64_t calls = 1;    ///< of a turn
  bool grows = false;   ///< tokens are appended before a call; else a call leaves nothing behind
  int64_t segment = 0;  ///< queries are grouped within so many positions; 0: they are not
  int64_t sequences = 0;
  int64_t kv_len = 0;  ///< of the turn's last call
  int64_t q_len = 1;

  /// Tokens that sequence i holds when a turn begins, and calls that it takes if it has any.
  int64_t begin(int64_t i) const;
  int64_t steps(int64_t i) const;
  /// Sequences that take part in a turn.
  int64_t visited() const;
  /// Queries before its first call that are known there: they make summaries and groups.
  int64_t known_queries(int64_t i) const;
};

/// The plan but for the number of sequences.
TurnPlan plan_turns(const AttentionBench& b);

}  // namespace gqa::bench
