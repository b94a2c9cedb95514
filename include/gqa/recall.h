// Whether attention still finds what a long context hides: retrieval at the level of attention.
#pragma once

#include <cstdint>

#include "gqa/attention_spec.h"
#include "gqa/bench.h"
#include "gqa/context.h"
#include "gqa/dtype.h"
#include "gqa/progress.h"

namespace gqa {
#pragma GCC visibility push(default)

/// Needles hidden in generated keys, for each KV head its own, at positions drawn uniformly.
/// Ordinary keys are like those of a trained model: a few directions hold most of their energy,
/// neighbours resemble each other, and every query gives some attention to the first token, whose
/// value is 0. A needle's key is an ordinary one plus a direction of its own, of an ordinary key's
/// length; its value is one of 64 random codes. Queries come one at a time, as in decoding, and
/// point to a needle's key, with noise, so that it gets some 0.7 of exact attention. A head looks
/// for the same needle during four tokens; the heads of a group look for different ones, as far as
/// there are enough.
struct RecallBench {
  AttentionSpec attention = ExactAttention{};
  int64_t q_heads = 32;
  int64_t kv_heads = 8;
  int64_t head_dim = 128;  ///< of keys and values; at least 16
  int64_t kv_len = 16384;  ///< tokens, those of the queries among them
  int64_t needles = 1;     ///< of each KV head, all before the first query
  int64_t queries = 32;    ///< tokens that ask: the last ones
  int64_t trials = 4;      ///< contexts, each generated anew
  KvDType kv_dtype = KvDType::f16;
  uint64_t seed = 0;
};

struct RecallResult {
  double recall = 0;  ///< share of queries and heads whose output is closest to the right code
  double exact_recall = 0;  ///< of exact attention to the same
  /// The share of exact attention that the needle asked for had; mean over queries and heads.
  double needle_mass = 0;
  double chance = 0;  ///< the recall of an output that knows nothing
  ApproxShares shares;
};

/// The same on every machine that computes the same random deviates and attention. Throws Error
/// (usage) for sizes that do not fit together; what an Approximation throws. Progress is called
/// between queries ("recall").
RecallResult bench_recall(Context& context, const RecallBench& bench,
                          const Progress& progress = {});

#pragma GCC visibility pop
}  // namespace gqa
