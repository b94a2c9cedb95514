// How far right gradients may be from the oracle's.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "reference/attention_backward.h"
#include "reference/row.h"
#include "support/attention_bound.h"
#include "support/backward_case.h"

namespace gqa::test {

/// How far f32 arithmetic may stray from the exact gradients, to first order in u = 2^-24 but for
/// exp() and what is multiplied by it.
///
/// A weight is exp(S - total), S a score and total the given LSE, or log(exp(LSE) + exp(sink)). S
/// is off as in attend(), score_roundings() u, the LSE by its own bound; a sink adds 4 roundings of
/// numbers up to 1 + |LSE| + |sink|. The difference rounds, and so may its product with log2(e) or
/// what of it ln 2 takes away: 3 u of the operands; exp() is off by 4 u. So a weight is off by a
/// factor of 1 + e_P = exp(the sum of these). One that underflows is off by up to `tiny`.
///
/// D sums d_out * out over v_head_dim elements, out being off by attend()'s bound and by what
/// storing it in its type rounded. dP sums as many products. Their difference, its product with the
/// weight and that with the soft cap's slope round once each.
///
/// The slope is 1 - tanh^2(x), x = scale q k / softcap. x is off by e_x, what a score is before
/// anything is added and two roundings more; tanh by its derivative times e_x, 0.4 e_x^2 (half of
/// its largest second derivative), its own 8 u, and two roundings if it is
/// taken from the capped score: e_t. The square and the difference round: the slope is off by
/// 2 |tanh| e_t + e_t^2 + 2 u, absolutely.
///
/// A sum of n products, in whatever order, adds n u of the terms' absolute values; the scale, and
/// queries that were scaled before, 3 more.
///
/// Where operands are rounded to bf16, weights and gradients of scores are off by 2^-8 of
/// themselves besides, on their way into the products with d_out, q and k. Sums may then lose what
/// is below 2^-126 at each addition, of which a term has up to two (see Table::multiply_pairs):
/// what that does to a score is nothing beside what rounds it.
class BackwardBound {
 public:
  /// As in reference::Gradients; dsinks without the sum's own roundings, which are those of a
  /// batch.
  std::vector<double> dq, dk, dv, dbias, dsinks;
  std::vector<double> dsinks_size;  ///< what the absolute values of their terms sum to, at most

  BackwardBound(const AttendBackwardItem& item, const Sizes& s, const AttendOptions& o,
                const reference::Result& forward, const reference::Gradients& g, bool rounded)
      : dq(g.dq.size()),
        dk(g.dk.size()),
        dv(g.dv.size()),
        dbias(g.dbias.size()),
        dsinks(g.dsinks.size()),
        dsinks_size(g.dsinks.size()),
        rounded_(rounded ? 0x1p-8 : 0),
        lost_(rounded ? 2 * 0x1p-126 : 0),
        item_(item),
        kv_(std::get<StridedKv>(item.forward.kv)),
        s_(s),
        o_(o),
        forward_(forward),
        g_(g),
        terms_of_key_(static_cast<size_t>(s.kv_len * s.kv_heads)),
        terms_of_row_(g.d.size()),
        terms_of_bias_(g.dbias.size()) {
    for (const reference::Pair& p : g.pairs) {
      ++terms_of_key_[key_of(p)];
      ++terms_of_row_[row_of(p)];
      if (!dbias.empty()) ++terms_of_bias_[bias_of(p)];
    }
    for (size_t row = 0; row < g.d.size(); ++row) add_row(row);
    for (const reference::Pair& p : g.pairs) add_pair(p);
  }

 private:
  static constexpr double u = 0x1p-24;
  static constexpr double tiny = 1e-37;

  struct RowError {
    double weight;  ///< e_P
    double d;       ///< of D
  };

  size_t row_of(const reference::Pair& p) const {
    return static_cast<size_t>(p.t * s_.q_heads + p.h);
  }
  size_t key_of(const reference::Pair& p) const {
    return static_cast<size_t>(p.key * s_.kv_heads + p.kv_head);
  }
  size_t bias_of(const reference::Pair& p) const {
    const auto& shape = item_.forward.bias.shape;
    const auto index = [&](size_t axis, int64_t i) { return shape[axis] == 1 ? 0 : i; };
    return static_cast<size_t>((index(0, p.h) * shape[1] + index(1, p.t)) * shape[2] +
                               index(2, p.key));
  }

  void add_row(size_t row) {
    const auto t = static_cast<int64_t>(row) / s_.q_heads;
    const auto h = static_cast<int64_t>(row) % s_.q_heads;
    const double size = forward_.score_size[row] + forward_.added_size[row];
    double logit = 0;
    if (!o_.sinks.empty()) logit = std::abs(o_.sinks[static_cast<size_t>(h)]);
    if (std::isinf(logit)) logit = 0;
    const bool none = terms_of_row_[row] == 0;
    const double ends = none ? 0 : 1 + std::abs(forward_.lse[row]) + logit;
    const double lse = none ? 0 : bound(s_, o_, forward_, row, 0, {}).lse;
    const double total = lse + 4 * u * ends;
    const double weight = std::expm1(score_roundings(s_, o_, forward_, row) * u + total +
                                     3 * u * (size + ends) + 4 * u);
    double d = 0, d_size = 0;
    for (int64_t i = 0; i < s_.v_head_dim && !none; ++i) {
      const size_t element = row * static_cast<size_t>(s_.v_head_dim) + static_cast<size_t>(i);
      const double out = std::abs(forward_.out[element]);
      const double computed = bound(s_, o_, forward_, row, element, {}).out;
      const double stored = computed + rounding(item_.forward.out.dtype, out + computed);
      const double d_out = std::abs(reference::element(item_.d_out, t, h, i));
      d += d_out * stored;
      d_size += d_out * (out + stored);
    }
    d += static_cast<double>(s_.v_head_dim + 1) * u * d_size;
    rows_.push_back({weight, d});
    if (dsinks.empty()) return;
    const double sink_weight = std::expm1(total + 3 * u * ends + 4 * u);
    const double of_d = std::abs(g_.d[row]) + d;
    const double product = g_.sink_weight[row] * of_d * (1 + sink_weight);
    dsinks[static_cast<size_t>(h)] +=
        1.01 * (g_.sink_weight[row] * (sink_weight * of_d + d) + u * product + tiny * (1 + of_d));
    dsinks_size[static_cast<size_t>(h)] += product;
  }

  double slope_error(const reference::Pair& p) const {
    if (o_.softcap <= 0) return 0;
    const double x = (2 * static_cast<double>(s_.head_dim) + 4) * u *
                     forward_.score_size[row_of(p)] / static_cast<double>(o_.softcap);
    const double tanh = std::sqrt(1 - p.slope);
    const double t = p.slope * x + 0.4 * x * x + 10 * u * tanh;
    return 2 * tanh * t + t * t + 2 * u;
  }

  void add_pair(const reference::Pair& p) {
    const RowError& row = rows_[row_of(p)];
    const double gap = std::abs(p.dp - g_.d[row_of(p)]);
    const double gap_error = static_cast<double>(s_.v_head_dim + 1) * u * p.dp_size + row.d +
                             u * gap + static_cast<double>(s_.v_head_dim) * lost_;
    const double ds = p.weight * gap;
    const double ds_error = p.weight * (row.weight * (gap + gap_error) + gap_error + u * gap) +
                            tiny * (1 + gap + gap_error);
    if (!dbias.empty()) {
      const size_t i = bias_of(p);
      dbias[i] += 1.01 * (ds_error + terms_of_bias_[i] * u * (ds + ds_error));
    }
    const double slope = slope_error(p);
    const double dot = ds * p.slope;
    const double exact_error = ds_error * (p.slope + slope) + ds * slope + u * dot + tiny;
    const double dot_error = exact_error + rounded_ * (dot + exact_error);
    const double weight_error = row.weight + rounded_ * (1 + row.weight);
    add_products(p, dot, dot_error);
    for (int64_t i = 0; i < s_.v_head_dim; ++i) {
      const double d_out = std::abs(reference::element(item_.d_out, p.t, p.h, i));
      const double n = terms_of_key_[key_of(p)];
      dv[key_of(p) * static_cast<size_t>(s_.v_head_dim) + static_cast<size_t>(i)] +=
          1.01 * (p.weight * (weight_error + (n + 1) * u * (1 + weight_error)) + tiny) * d_out +
          lost_;
    }
  }

  void add_products(const reference::Pair& p, double dot, double dot_error) {
    const double scale = std::abs(reference::scale_of(item_.forward, o_));
    const auto error = [&](double terms) {
      return 1.01 * scale * (dot_error + (terms + 3) * u * (dot + dot_error));
    };
    const double in_row = error(terms_of_row_[row_of(p)]);
    const double in_key = error(terms_of_key_[key_of(p)]);
    const double lost = scale * lost_;
    for (int64_t i = 0; i < s_.head_dim; ++i) {
      const double k = std::abs(reference::element(kv_.k, kv_, p.key, p.kv_head, i));
      const double q = std::abs(reference::element(item_.forward.q, p.t, p.h, i));
      dq[row_of(p) * static_cast<size_t>(s_.head_dim) + static_cast<size_t>(i)] +=
          in_row * k + lost;
      dk[key_of(p) * static_cast<size_t>(s_.head_dim) + static_cast<size_t>(i)] +=
          in_key * q + lost;
    }
  }

  double rounded_;
  double lost_;  ///< of a term, at most
  const AttendBackwardItem& item_;
  const StridedKv& kv_;
  const Sizes& s_;
  const AttendOptions& o_;
  const reference::Result& forward_;
  const reference::Gradients& g_;
  std::vector<double> terms_of_key_, terms_of_row_, terms_of_bias_;
  std::vector<RowError> rows_;
};

}  // namespace gqa::test
