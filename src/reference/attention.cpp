#include "reference/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/half.h"

namespace gqa::reference {
namespace {

constexpr double none = -std::numeric_limits<double>::infinity();

/// An axis of size 1 stands for all.
double at(const AnyView<3>& x, int64_t i, int64_t j, int64_t k) {
  const auto step = [&](size_t axis, int64_t index) {
    return x.shape[axis] == 1 ? 0 : index * x.strides[axis];
  };
  return load_element(x.data, x.dtype, step(0, i) + step(1, j) + step(2, k));
}

/// Token s of a paged array.
double at(const AnyView<4>& x, std::span<const int32_t> pages, int64_t s, int64_t head, int64_t d) {
  const int64_t logical = s / x.shape[1];
  const int64_t page = pages.empty() ? logical : pages[static_cast<size_t>(logical)];
  return load_element(
      x.data, x.dtype,
      page * x.strides[0] + s % x.shape[1] * x.strides[1] + head * x.strides[2] + d * x.strides[3]);
}

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

}  // namespace

Result attend(const AttendItem& item, const AttendOptions& options, const Sees& sees) {
  const auto& kv = std::get<StridedKv>(item.kv);
  const auto [q_len, q_heads, head_dim] = item.q.shape;
  const auto v_head_dim = static_cast<size_t>(kv.v.shape[3]);
  const double scale = options.scale ? static_cast<double>(*options.scale)
                                     : 1.0 / std::sqrt(static_cast<double>(head_dim));
  const double cap = static_cast<double>(options.softcap);
  const int64_t q_start = item.q_start.value_or(kv.len - q_len);
  Result result;
  for (int64_t t = 0; t < q_len; ++t) {
    for (int64_t h = 0; h < q_heads; ++h) {
      const int64_t g = kv_head_of(h, q_heads, kv.k.shape[2], options);
      const int64_t position = q_start + t;
      std::vector<int64_t> keys;
      std::vector<double> scores;
      double max = none, size = 0, added_size = 0;
      for (int64_t s = kv.first_key; s < kv.len; ++s) {
        const double bias = item.bias.data ? at(item.bias, h, t, s) : 0.0;
        if (!sees(position, s) || bias == none || !selected(item.selected, t, g, s)) continue;
        double dot = 0, absolute = 0;
        for (int64_t d = 0; d < head_dim; ++d) {
          const double product = at(item.q, t, h, d) * at(kv.k, kv.pages, s, g, d);
          dot += product;
          absolute += std::abs(product);
        }
        double score = scale * dot;
        if (cap > 0) score = cap * std::tanh(score / cap);
        const double slope = options.alibi.empty()
                                 ? 0.0
                                 : static_cast<double>(options.alibi[static_cast<size_t>(h)]);
        const double distance = static_cast<double>(std::abs(position - s));
        score += bias - slope * distance;
        keys.push_back(s);
        scores.push_back(score);
        max = std::max(max, score);
        size = std::max(size, std::abs(scale) * absolute);
        added_size = std::max(added_size, std::abs(bias) + std::abs(slope) * distance);
      }
      const double sink =
          options.sinks.empty() ? none : static_cast<double>(options.sinks[static_cast<size_t>(h)]);
      double sum = 0;
      std::vector<double> value(v_head_dim), value_size(v_head_dim);
      for (size_t i = 0; i < keys.size(); ++i) {
        const double weight = std::exp(scores[i] - max);
        sum += weight;
        for (size_t d = 0; d < v_head_dim; ++d) {
          const double x = at(kv.v, kv.pages, keys[i], g, static_cast<int64_t>(d));
          value[d] += weight * x;
          value_size[d] += weight * std::abs(x);
        }
      }
      const double total = sum + (sink == none ? 0.0 : std::exp(sink - max));
      for (size_t d = 0; d < v_head_dim; ++d) {
        result.out.push_back(keys.empty() ? 0 : value[d] / total);
        result.value_size.push_back(keys.empty() ? 0 : value_size[d] / total);
      }
      result.lse.push_back(keys.empty() ? none : max + std::log(sum));
      result.score_size.push_back(size);
      result.added_size.push_back(added_size);
    }
  }
  return result;
}

}  // namespace gqa::reference
