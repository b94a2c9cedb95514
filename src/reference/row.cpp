#include "reference/row.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gqa::reference {
namespace {

constexpr double none = -std::numeric_limits<double>::infinity();

bool selected(const KeySelection& selection, int64_t t, int64_t g, int64_t s) {
  if (!selection.words) return true;
  const int64_t row = t * selection.token_stride + g * selection.head_stride;
  return (selection.words[row + s / 64] >> (s % 64) & 1) != 0;
}

int64_t kv_head_of(int64_t head, int64_t q_heads, int64_t kv_heads, const AttendOptions& options) {
  if (options.group_offsets.empty()) return head / (q_heads / kv_heads);
  int64_t g = 0;
  while (options.group_offsets[static_cast<size_t>(g) + 1] <= head) ++g;
  return g;
}

double of_head(std::span<const float> values, int64_t h, double otherwise) {
  return values.empty() ? otherwise : static_cast<double>(values[static_cast<size_t>(h)]);
}

double log_sum(double a, double b) {
  const double max = std::max(a, b);
  return max == none ? none : max + std::log(std::exp(a - max) + std::exp(b - max));
}

/// Scores become weights.
void weigh(Row& row, double sink) {
  double max = none, sum = 0;
  for (const double score : row.weights) max = std::max(max, score);
  for (const double score : row.weights) sum += std::exp(score - max);
  row.lse = row.keys.empty() ? none : max + std::log(sum);
  const double total = log_sum(row.lse, sink);
  for (double& x : row.weights) x = std::exp(x - total);
  row.sink_weight = sink == none ? 0 : std::exp(sink - total);
}

}  // namespace

double scale_of(const AttendItem& item, const AttendOptions& options) {
  return options.scale ? static_cast<double>(*options.scale)
                       : 1.0 / std::sqrt(static_cast<double>(item.q.shape[2]));
}

Row row_of(const AttendItem& item, const AttendOptions& options, const Sees& sees, int64_t t,
           int64_t h) {
  const auto& kv = std::get<StridedKv>(item.kv);
  const auto [q_len, q_heads, head_dim] = item.q.shape;
  const double scale = scale_of(item, options);
  const double cap = static_cast<double>(options.softcap);
  const double alibi = of_head(options.alibi, h, 0.0);
  const int64_t position = item.q_start.value_or(kv.len - q_len) + t;
  Row row;
  row.kv_head = kv_head_of(h, q_heads, kv.k.shape[2], options);
  for (int64_t s = kv.first_key; s < kv.len; ++s) {
    const double bias = item.bias.data ? element(item.bias, h, t, s) : 0.0;
    if (!sees(position, s) || bias == none || !selected(item.selected, t, row.kv_head, s)) continue;
    double dot = 0, absolute = 0;
    for (int64_t d = 0; d < head_dim; ++d) {
      const double product = element(item.q, t, h, d) * element(kv.k, kv, s, row.kv_head, d);
      dot += product;
      absolute += std::abs(product);
    }
    const double tanh = cap > 0 ? std::tanh(scale * dot / cap) : 0.0;
    const double distance = static_cast<double>(std::abs(position - s));
    const double score = (cap > 0 ? cap * tanh : scale * dot) + bias - alibi * distance;
    row.keys.push_back(s);
    row.weights.push_back(score);
    row.slopes.push_back(1 - tanh * tanh);
    row.score_size = std::max(row.score_size, std::abs(scale) * absolute);
    row.added_size = std::max(row.added_size, std::abs(bias) + std::abs(alibi) * distance);
  }
  weigh(row, of_head(options.sinks, h, none));
  return row;
}

}  // namespace gqa::reference
