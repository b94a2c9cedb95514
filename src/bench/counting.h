// What attention has to do: pairs, bytes, operations.
#pragma once

#include <cstdint>
#include <vector>

#include "gqa/config.h"
#include "gqa/mask.h"

namespace gqa::bench {

/// Pairs of a query and a key that it sees; the queries are the last q_len of kv_len tokens.
int64_t visible_pairs(const Mask& mask, int64_t q_len, int64_t kv_len);

/// Keys that at least one of these queries sees: ascending runs with others between them.
std::vector<KeyRange> seen_keys(const Mask& mask, int64_t q_len, int64_t kv_len);

/// Keys in all runs.
int64_t count_keys(const std::vector<KeyRange>& runs);

/// Useful operations: a multiply-add per element of the key and of the value, per query head, for
/// each pair.
double attention_flop(int64_t q_heads, int64_t head_dim, int64_t v_head_dim, int64_t pairs);

/// The same of its backward: three products over the head size, two over that of values.
double backward_flop(int64_t q_heads, int64_t head_dim, int64_t v_head_dim, int64_t pairs);

/// Operations of a model that reads a prompt from its beginning: products with the weights, logits
/// of the last token, attention.
double prefill_flop(const ModelConfig& config, int64_t prompt_tokens);

}  // namespace gqa::bench
