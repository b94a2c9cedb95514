#include "reference/attention_backward.h"

#include <cmath>

#include "reference/row.h"

namespace gqa::reference {
namespace {

class Backward {
 public:
  Backward(const AttendBackwardItem& item, const AttendOptions& options)
      : item_(item.forward),
        kv_(std::get<StridedKv>(item.forward.kv)),
        d_out_(item.d_out),
        scale_(scale_of(item_, options)) {
    const auto zeros = [](int64_t a, int64_t b, int64_t c) {
      return std::vector<double>(static_cast<size_t>(a * b * c));
    };
    const auto [q_len, q_heads, head_dim] = item_.q.shape;
    result.dq = zeros(q_len, q_heads, head_dim);
    result.dk = zeros(kv_.len, kv_heads(), head_dim);
    result.dv = zeros(kv_.len, kv_heads(), v_head_dim());
    if (item_.bias.data) {
      result.dbias = zeros(item_.bias.shape[0], item_.bias.shape[1], item_.bias.shape[2]);
    }
    if (!options.sinks.empty()) result.dsinks = zeros(q_heads, 1, 1);
  }

  void add_row(const Row& row, int64_t t, int64_t h) {
    const size_t first = result.pairs.size();
    double d_of_row = 0;  // P dP summed over keys: what rowsum(d_out * out) is
    for (size_t i = 0; i < row.keys.size(); ++i) {
      Pair pair{t, h, row.kv_head, row.keys[i], row.weights[i], 0, 0, row.slopes[i]};
      for (int64_t d = 0; d < v_head_dim(); ++d) {
        const double product =
            element(d_out_, t, h, d) * element(kv_.v, kv_, pair.key, pair.kv_head, d);
        pair.dp += product;
        pair.dp_size += std::abs(product);
      }
      d_of_row += pair.weight * pair.dp;
      result.pairs.push_back(pair);
    }
    for (size_t i = first; i < result.pairs.size(); ++i) add_pair(result.pairs[i], d_of_row);
    if (!result.dsinks.empty()) result.dsinks[static_cast<size_t>(h)] -= row.sink_weight * d_of_row;
    result.d.push_back(d_of_row);
    result.sink_weight.push_back(row.sink_weight);
  }

  Gradients result;

 private:
  int64_t kv_heads() const { return kv_.k.shape[2]; }
  int64_t v_head_dim() const { return kv_.v.shape[3]; }

  void add_pair(const Pair& p, double d_of_row) {
    const double ds = p.weight * (p.dp - d_of_row);
    if (item_.bias.data) {
      const auto& shape = item_.bias.shape;
      const auto index = [&](size_t axis, int64_t i) { return shape[axis] == 1 ? 0 : i; };
      const int64_t at = (index(0, p.h) * shape[1] + index(1, p.t)) * shape[2] + index(2, p.key);
      result.dbias[static_cast<size_t>(at)] += ds;
    }
    const int64_t head_dim = item_.q.shape[2];
    const int64_t q_row = p.t * item_.q.shape[1] + p.h;
    const int64_t kv_row = p.key * kv_heads() + p.kv_head;
    for (int64_t d = 0; d < head_dim; ++d) {
      const double dot = scale_ * ds * p.slope;
      result.dq[static_cast<size_t>(q_row * head_dim + d)] +=
          dot * element(kv_.k, kv_, p.key, p.kv_head, d);
      result.dk[static_cast<size_t>(kv_row * head_dim + d)] += dot * element(item_.q, p.t, p.h, d);
    }
    for (int64_t d = 0; d < v_head_dim(); ++d) {
      result.dv[static_cast<size_t>(kv_row * v_head_dim() + d)] +=
          p.weight * element(d_out_, p.t, p.h, d);
    }
  }

  const AttendItem& item_;
  const StridedKv& kv_;
  const AnyView<3>& d_out_;
  const double scale_;
};

}  // namespace

Gradients attend_backward(const AttendBackwardItem& item, const AttendOptions& options,
                          const Sees& sees) {
  Backward backward(item, options);
  for (int64_t t = 0; t < item.forward.q.shape[0]; ++t) {
    for (int64_t h = 0; h < item.forward.q.shape[1]; ++h) {
      backward.add_row(row_of(item.forward, options, sees, t, h), t, h);
    }
  }
  return std::move(backward.result);
}

}  // namespace gqa::reference
