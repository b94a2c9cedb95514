#include "bench/approx_tally.h"

#include <algorithm>

#include "bench/counting.h"

namespace gqa::bench {

void ApproxTally::add(const ApproxStats& stats) {
  total_.tokens += stats.tokens;
  total_.keys_visible += stats.keys_visible;
  total_.keys_read += stats.keys_read;
  total_.bytes_visible += stats.bytes_visible;
  total_.bytes_read += stats.bytes_read;
  total_.select_seconds += stats.select_seconds;
  total_.attend_seconds += stats.attend_seconds;
  if (!stats.chosen) return;
  chosen_sum_ += stats.chosen->mean;
  ++chosen_count_;
  ApproxStats::Chosen chosen = total_.chosen.value_or(*stats.chosen);
  chosen.mean = chosen_sum_ / static_cast<double>(chosen_count_);
  chosen.min = std::min(chosen.min, stats.chosen->min);
  chosen.max = std::max(chosen.max, stats.chosen->max);
  total_.chosen = chosen;
}

ApproxStats mask_stats(const Mask& mask, const Mask& model, int64_t q_len, int64_t kv_len,
                       int64_t kv_heads, int64_t token_bytes) {
  const auto heads = static_cast<double>(kv_heads);
  const auto bytes = static_cast<double>(token_bytes);
  ApproxStats stats;
  stats.tokens = static_cast<double>(q_len) * heads;
  stats.keys_visible = static_cast<double>(visible_pairs(model, q_len, kv_len)) * heads;
  stats.keys_read = static_cast<double>(visible_pairs(mask, q_len, kv_len)) * heads;
  stats.bytes_visible = stats.keys_visible * bytes;
  stats.bytes_read = stats.keys_read * bytes;
  return stats;
}

}  // namespace gqa::bench
