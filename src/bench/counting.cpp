#include "bench/counting.h"

#include <algorithm>

namespace gqa::bench {
namespace {

template <typename Body>
void for_runs(const Mask& mask, int64_t q_len, int64_t kv_len, const Body& body) {
  for (int64_t position = kv_len - q_len; position < kv_len; ++position) {
    for (const KeyRange& run : visible_keys(mask, position, {.len = kv_len})) {
      if (!run.empty()) body(run);
    }
  }
}

}  // namespace

int64_t visible_pairs(const Mask& mask, int64_t q_len, int64_t kv_len) {
  int64_t pairs = 0;
  for_runs(mask, q_len, kv_len, [&](const KeyRange& run) { pairs += run.end - run.begin; });
  return pairs;
}

std::vector<KeyRange> seen_keys(const Mask& mask, int64_t q_len, int64_t kv_len) {
  std::vector<KeyRange> runs;
  for_runs(mask, q_len, kv_len, [&](const KeyRange& run) { runs.push_back(run); });
  std::sort(runs.begin(), runs.end(),
            [](const KeyRange& a, const KeyRange& b) { return a.begin < b.begin; });
  std::vector<KeyRange> seen;
  for (const KeyRange& run : runs) {
    if (seen.empty() || run.begin > seen.back().end) {
      seen.push_back(run);
    } else {
      seen.back().end = std::max(seen.back().end, run.end);
    }
  }
  return seen;
}

int64_t count_keys(const std::vector<KeyRange>& runs) {
  int64_t keys = 0;
  for (const KeyRange& run : runs) keys += run.end - run.begin;
  return keys;
}

double attention_flop(int64_t q_heads, int64_t head_dim, int64_t v_head_dim, int64_t pairs) {
  return 2.0 * static_cast<double>(head_dim + v_head_dim) * static_cast<double>(q_heads) *
         static_cast<double>(pairs);
}

double backward_flop(int64_t q_heads, int64_t head_dim, int64_t v_head_dim, int64_t pairs) {
  return 2.0 * static_cast<double>(3 * head_dim + 2 * v_head_dim) * static_cast<double>(q_heads) *
         static_cast<double>(pairs);
}

double prefill_flop(const ModelConfig& c, int64_t prompt_tokens) {
  const int64_t pairs =
      visible_pairs({.causal = true, .window = c.window}, prompt_tokens, prompt_tokens);
  double flop = 2.0 * static_cast<double>(c.width) * static_cast<double>(c.vocab_size);
  for (const int64_t kv_heads : c.kv_heads) {
    const int64_t weights = c.width * (2 * (c.q_heads + kv_heads) * c.head_dim + 3 * c.mlp_width);
    flop += 2.0 * static_cast<double>(weights) * static_cast<double>(prompt_tokens) +
            attention_flop(c.q_heads, c.head_dim, c.head_dim, pairs);
  }
  return flop;
}

}  // namespace gqa::bench
