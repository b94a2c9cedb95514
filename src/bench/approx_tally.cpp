#include "bench/approx_tally.h"

#include <algorithm>

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

}  // namespace gqa::bench
