#include "reference/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/half.h"

namespace gqa::reference {
namespace {

double at(const AnyView<3>& x, int64_t i, int64_t j, int64_t k) {
  return load_element(x.data, x.dtype, i * x.strides[0] + j * x.strides[1] + k * x.strides[2]);
}

/// Token s of a paged array.
double at(const AnyView<4>& x, std::span<const int32_t> pages, int64_t s, int64_t head, int64_t d) {
  const int64_t logical = s / x.shape[1];
  const int64_t page = pages.empty() ? logical : pages[static_cast<size_t>(logical)];
  return load_element(
      x.data, x.dtype,
      page * x.strides[0] + s % x.shape[1] * x.strides[1] + head * x.strides[2] + d * x.strides[3]);
}

}  // namespace

Result attend(const AttendItem& item, const AttendOptions& options) {
  const auto& kv = std::get<StridedKv>(item.kv);
  const auto [q_len, q_heads, head_dim] = item.q.shape;
  const int64_t v_head_dim = kv.v.shape[3];
  const int64_t group = q_heads / kv.k.shape[2];
  const double scale = options.scale ? static_cast<double>(*options.scale)
                                     : 1.0 / std::sqrt(static_cast<double>(head_dim));
  const int64_t q_start = item.q_start.value_or(kv.len - q_len);
  Result result;
  for (int64_t t = 0; t < q_len; ++t) {
    for (int64_t h = 0; h < q_heads; ++h) {
      const int64_t end = options.mask.causal ? std::min(kv.len, q_start + t + 1) : kv.len;
      std::vector<double> score;
      double max = -std::numeric_limits<double>::infinity();
      double size = 0;
      for (int64_t s = kv.first_key; s < end; ++s) {
        double dot = 0, absolute = 0;
        for (int64_t d = 0; d < head_dim; ++d) {
          const double product = at(item.q, t, h, d) * at(kv.k, kv.pages, s, h / group, d);
          dot += product;
          absolute += std::abs(product);
        }
        score.push_back(scale * dot);
        max = std::max(max, scale * dot);
        size = std::max(size, std::abs(scale) * absolute);
      }
      double sum = 0;
      std::vector<double> value(static_cast<size_t>(v_head_dim)), value_size(value);
      for (size_t i = 0; i < score.size(); ++i) {
        const double weight = std::exp(score[i] - max);
        sum += weight;
        for (int64_t d = 0; d < v_head_dim; ++d) {
          const double x = at(kv.v, kv.pages, kv.first_key + static_cast<int64_t>(i), h / group, d);
          value[static_cast<size_t>(d)] += weight * x;
          value_size[static_cast<size_t>(d)] += weight * std::abs(x);
        }
      }
      for (size_t d = 0; d < value.size(); ++d) {
        result.out.push_back(score.empty() ? 0 : value[d] / sum);
        result.value_size.push_back(score.empty() ? 0 : value_size[d] / sum);
      }
      result.lse.push_back(max + std::log(sum));
      result.score_size.push_back(size);
    }
  }
  return result;
}

}  // namespace gqa::reference
