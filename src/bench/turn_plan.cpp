#include "bench/turn_plan.h"

#include <algorithm>

#include "approx/clustered.h"
#include "gqa/approx.h"
#include "gqa/kv_cache.h"

namespace gqa::bench {
namespace {

bool groups_queries(const AttentionSpec& spec) {
  return std::holds_alternative<Clustered>(spec) || std::holds_alternative<DynamicGroups>(spec);
}

/// Consecutive tokens after which everything has come round.
int64_t period(const AttentionSpec& spec) {
  if (groups_queries(spec)) return ClusteredVariant::segment;
  if (const auto* summed = std::get_if<GlobalLocal>(&spec)) {
    return std::max(KvCache::page_size, summed->block);
  }
  return KvCache::page_size;
}

}  // namespace

TurnPlan plan_turns(const AttentionBench& b) {
  TurnPlan plan;
  plan.kv_len = b.kv_len;
  plan.q_len = b.q_len;
  if (Approximation::as_mask(b.attention, {.window = b.window})) return plan;
  plan.grows = true;
  if (groups_queries(b.attention)) plan.segment = ClusteredVariant::segment;
  if (b.q_len == 1) {
    plan.calls = std::min(period(b.attention), std::max<int64_t>(1, b.kv_len - 1));
  }
  return plan;
}

int64_t TurnPlan::begin(int64_t i) const {
  const int64_t first =
      sequences > calls ? i % calls : i * (calls / sequences) + std::min(i, calls % sequences);
  return kv_len - q_len - (calls - 1) + first;
}

int64_t TurnPlan::steps(int64_t i) const {
  return sequences > calls ? 1 : calls / sequences + (i < calls % sequences ? 1 : 0);
}

int64_t TurnPlan::visited() const { return std::min(sequences, calls); }

int64_t TurnPlan::known_queries(int64_t i) const {
  const int64_t past = begin(i);
  if (past == 0) return 0;
  return segment > 0 ? std::max<int64_t>(1, past % segment) : 1;
}

}  // namespace gqa::bench
