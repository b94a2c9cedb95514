#include "regroup/balance.h"

#include <cmath>

namespace gqa {
namespace {

/// The factor of a that makes it as large as b, divided by the same; 1 where either is 0.
double factor_between(double a_squares, double a_count, double b_squares, double b_count) {
  const double ratio = (b_squares / b_count) / (a_squares / a_count);
  return std::isfinite(ratio) && ratio > 0 ? std::pow(ratio, 0.25) : 1.0;
}

}  // namespace

Heads balanced(Heads heads) {
  const int64_t d = heads.head_dim;
  const int64_t half = d / 2;
  for (int64_t g = 0; g < heads.kv_heads(); ++g) {
    const auto at = static_cast<size_t>(g);
    const int64_t first = heads.q_begin[at];
    const int64_t n = heads.q_begin[at + 1] - first;
    for (int64_t p = 0; p < half; ++p) {
      double queries = 0;
      for (int64_t h = first; h < first + n; ++h) {
        for (const int64_t i : {p, p + half}) queries += heads.q_of(h).row(i).squaredNorm();
      }
      const double keys =
          heads.k_of(g).row(p).squaredNorm() + heads.k_of(g).row(p + half).squaredNorm();
      const double f = factor_between(keys, 1, queries, static_cast<double>(n));
      for (const int64_t i : {p, p + half}) {
        heads.k_of(g).row(i) *= f;
        for (int64_t h = first; h < first + n; ++h) heads.q_of(h).row(i) /= f;
      }
    }
    for (int64_t i = 0; i < d; ++i) {
      double outputs = 0;
      for (int64_t h = first; h < first + n; ++h) outputs += heads.o_of(h).col(i).squaredNorm();
      const double f =
          factor_between(heads.v_of(g).row(i).squaredNorm(), static_cast<double>(heads.inputs()),
                         outputs, static_cast<double>(n * heads.o.rows()));
      heads.v_of(g).row(i) *= f;
      for (int64_t h = first; h < first + n; ++h) heads.o_of(h).col(i) /= f;
    }
  }
  return heads;
}

}  // namespace gqa
