// How far a right answer may be from the oracle's.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "reference/attention.h"
#include "support/attention_case.h"

namespace gqa::test {

/// How far f32 arithmetic may stray, to first order in u = 2^-24, from the exact result.
///
/// scale * q k is a chain of head_dim multiply-adds on a query that was rounded once when scaled:
/// its error is (head_dim + 2) u A, A = scale * sum |q k|; without FMA each step rounds twice. A
/// soft cap does not enlarge it; the quotient adds 2 u A, tanh (4 units in the last place) and the
/// product 9 u A. ALiBi's product and sum and the bias's sum add 3 u (A + B), B = |bias| + |ALiBi|.
/// Subtracting the running maximum rounds by u * 2 (A + B), and the maxima's steps telescope to
/// another 2 (A + B) within chunks and as much over merges. exp(x) adds 4u and |x| u / 16, |x| at
/// most 2 (A + B); each rescaling of a block or chunk at most 3u. So a weight is off by the sum e
/// of these, n rescalings among them, relatively; numerator and denominator both carry e. Sums add
/// one u per term in a chain: 1024 keys of a chunk and the merges. A sink's share is off by its
/// distance to the maximum, rounded, and by the maximum's own error.
struct Bound {
  double out, lse;
};
/// What other roundings may add: to a score, and to an output.
struct Rounded {
  double score = 0, out = 0;
};
/// Of this, what concerns a score alone, in units of u.
inline double score_roundings(const Sizes& s, const AttendOptions& o, const reference::Result& r,
                              size_t row) {
  const double a = r.score_size[row];
  double score = (2 * static_cast<double>(s.head_dim) + 2) * a;
  if (o.softcap > 0) score += 11 * a;
  if (r.added_size[row] > 0) score += 3 * (a + r.added_size[row]);
  return score;
}
inline Bound bound(const Sizes& s, const AttendOptions& o, const reference::Result& r, size_t row,
                   size_t element, const Rounded& rounded) {
  const double u = 0x1p-24;
  const double keys = static_cast<double>(s.kv_len);
  const double rescalings = keys / 64 + keys / 1024 + 3;
  const double size = r.score_size[row] + r.added_size[row];
  const double score = score_roundings(s, o, r, row) + (6 + 2.0 / 16) * size;
  const double weight = score * u + (4 + 3 * rescalings) * u + std::expm1(rounded.score);
  const double chain = 2 * (std::min(keys, 1024.0) + keys / 1024 + 3) * u;
  double sink = 0;
  if (!o.sinks.empty()) {
    const double logit = o.sinks[row % o.sinks.size()];
    if (std::isfinite(logit)) sink = (2 * (std::abs(logit) + size) + 8) * u;
  }
  return {1.01 * (2 * weight + 2 * chain + sink + 4 * u) * r.value_size[element] + keys * 1e-37 +
              rounded.out,
          1.01 * (weight + chain + 2 * u * (1 + size + std::abs(r.lse[row])))};
}

/// What storing x as t may add.
inline double rounding(DType t, double x) {
  switch (t) {
    case DType::f32:
      return 0;
    case DType::f16:
      return std::abs(x) * 0x1p-11 + 0x1p-25;
    case DType::bf16:
      return std::abs(x) * 0x1p-8;
  }
  return 0;
}

/// Compares every output and LSE with the oracle's.
inline ::testing::AssertionResult agrees(const Problem& p, const Sizes& s, const AttendOptions& o,
                                         const reference::Result& r, const Rounded& rounded = {}) {
  size_t row = 0;
  for (int64_t t = 0; t < s.q_len; ++t) {
    for (int64_t h = 0; h < s.q_heads; ++h, ++row) {
      for (int64_t d = 0; d < s.v_head_dim; ++d) {
        const size_t i = row * static_cast<size_t>(s.v_head_dim) + static_cast<size_t>(d);
        const double tolerance = bound(s, o, r, row, i, rounded).out;
        const double got = p.out.get({t, h, d});
        const double allowed = tolerance + rounding(p.out.dtype, std::abs(r.out[i]) + tolerance);
        if (!(std::abs(got - r.out[i]) <= allowed)) {
          return ::testing::AssertionFailure()
                 << "out[" << t << "," << h << "," << d << "] is " << got << ", expected "
                 << r.out[i] << " within " << allowed;
        }
      }
      const double lse = p.lse.get({t, h});
      const double allowed = bound(s, o, r, row, 0, rounded).lse;
      const bool both_none = std::isinf(r.lse[row]) && lse == r.lse[row];
      if (!both_none && !(std::abs(lse - r.lse[row]) <= allowed)) {
        return ::testing::AssertionFailure()
               << "lse[" << t << "," << h << "] is " << lse << ", expected " << r.lse[row]
               << " within " << allowed;
      }
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace gqa::test
