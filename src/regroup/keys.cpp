#include "regroup/keys.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "regroup/decompositions.h"

namespace gqa {
namespace {

constexpr double tiny = std::numeric_limits<double>::min();

/// One plane of a group: keys' inner products, and the weights of their queries.
struct Plane {
  ComplexMatrix keys;  ///< [members, members]
  Vector weights;      ///< [members]
};

Plane plane_of(const HeadGrams& grams, const std::vector<int64_t>& group, int64_t p) {
  const int64_t n = std::ssize(group);
  Plane plane{ComplexMatrix(n, n), Vector(n)};
  for (int64_t a = 0; a < n; ++a) {
    const int64_t from = group[static_cast<size_t>(a)];
    plane.weights[a] = grams.query_weight(p, from);
    for (int64_t b = 0; b < n; ++b) {
      plane.keys(a, b) = grams.keys[static_cast<size_t>(p)](from, group[static_cast<size_t>(b)]);
    }
  }
  return plane;
}

HermitianEigen principal(const Plane& plane, Eigenvectors vectors) {
  const Eigen::MatrixXcd weighted =
      plane.weights.asDiagonal() * plane.keys * plane.weights.asDiagonal();
  return HermitianEigen(weighted, vectors);
}

/// E|mix^T z|^2.
double energy(const Plane& plane, const ComplexVector& mix) {
  return std::max((mix.transpose() * plane.keys * mix.conjugate()).value().real(), 0.0);
}

/// Spreads factors of KV heads over their query heads.
void set_queries(const HeadGrams& grams, const std::vector<int64_t>& group, int64_t p,
                 const ComplexVector& factors, KeyMix& mix) {
  int64_t to = 0;
  for (size_t a = 0; a < group.size(); ++a) {
    const auto at = static_cast<size_t>(group[a]);
    for (int64_t h = grams.q_begin[at]; h < grams.q_begin[at + 1]; ++h) {
      mix.query(p, to++) = factors[static_cast<int64_t>(a)];
    }
  }
}

KeyMix empty_mix(const HeadGrams& grams, const std::vector<int64_t>& group) {
  int64_t queries = 0;
  for (const int64_t g : group) {
    const auto at = static_cast<size_t>(g);
    queries += grams.q_begin[at + 1] - grams.q_begin[at];
  }
  const int64_t half = grams.head_dim / 2;
  return {ComplexMatrix(half, std::ssize(group)), ComplexMatrix(half, queries)};
}

/// Gives the key and its queries equal energy: which of the factors that cancel is chosen changes
/// no score, but what the weights look like, and what a quantised cache loses.
void set_balanced(const HeadGrams& grams, const std::vector<int64_t>& group, int64_t p,
                  const Plane& plane, ComplexVector key, ComplexVector query, KeyMix& mix) {
  const double keys = energy(plane, key);
  const double queries = (query.cwiseAbs().cwiseProduct(plane.weights)).squaredNorm();
  const double factor = keys > tiny && queries > tiny ? std::pow(queries / keys, 0.25) : 1.0;
  mix.key.row(p) = key.transpose() * factor;
  query /= factor;
  set_queries(grams, group, p, query, mix);
}

}  // namespace

KeyMix principal_keys(const HeadGrams& grams, const std::vector<int64_t>& group) {
  KeyMix mix = empty_mix(grams, group);
  for (int64_t p = 0; p < grams.head_dim / 2; ++p) {
    const Plane plane = plane_of(grams, group, p);
    const auto solver = principal(plane, Eigenvectors::wanted);
    const double kept = solver.eigenvalues().maxCoeff();
    const int64_t n = plane.weights.size();
    if (!(kept > tiny)) {  // no score comes from this plane
      set_balanced(grams, group, p, plane, ComplexVector::Unit(n, 0), ComplexVector::Ones(n), mix);
      continue;
    }
    const ComplexVector u = solver.eigenvectors().rightCols<1>();
    const ComplexVector weighted =
        u.conjugate().cwiseProduct(plane.weights.cast<std::complex<double>>());
    // conj(u) / w, without the division, since u = G u / kept.
    const ComplexVector query = (weighted.transpose() * plane.keys).transpose() / kept;
    const ComplexVector& key = weighted;
    set_balanced(grams, group, p, plane, key, query, mix);
  }
  return mix;
}

KeyMix aligned_keys(const HeadGrams& grams, const std::vector<int64_t>& group) {
  constexpr int rounds = 15;
  const int64_t n = std::ssize(group);
  KeyMix mix = empty_mix(grams, group);
  for (int64_t p = 0; p < grams.head_dim / 2; ++p) {
    Plane plane = plane_of(grams, group, p);
    Vector scale(n);
    for (int64_t a = 0; a < n; ++a) {
      const double own = plane.keys(a, a).real();
      scale[a] = own > tiny ? 1.0 / std::sqrt(own) : 1.0;
    }
    const ComplexMatrix keys = scale.asDiagonal() * plane.keys * scale.asDiagonal();
    ComplexVector phases = ComplexVector::Ones(n);
    ComplexVector mean = ComplexVector::Unit(n, 0);
    for (int round = 0; round < rounds; ++round) {
      // <mean, key_a> turned to be real.
      const ComplexVector along = (mean.transpose() * keys).transpose();
      for (int64_t a = 0; a < n; ++a) {
        const double length = std::abs(along[a]);
        phases[a] = length > tiny ? along[a] / length : 1.0;
      }
      mean = phases / static_cast<double>(n);
    }
    const double wanted = keys.diagonal().real().mean();
    const double got = (mean.transpose() * keys * mean.conjugate()).value().real();
    const double factor = got > tiny && wanted > tiny ? std::sqrt(wanted / got) : 1.0;
    const ComplexVector real_scale = scale.cast<std::complex<double>>();
    set_balanced(grams, group, p, plane, factor * mean.cwiseProduct(real_scale),
                 phases.cwiseQuotient(real_scale), mix);
  }
  return mix;
}

Loss key_loss(const HeadGrams& grams, const std::vector<int64_t>& group) {
  Loss loss;
  for (int64_t p = 0; p < grams.head_dim / 2; ++p) {
    const auto solver = principal(plane_of(grams, group, p), Eigenvectors::not_wanted);
    const double total = solver.eigenvalues().sum();
    loss.total += total;
    loss.lost += std::max(total - solver.eigenvalues().maxCoeff(), 0.0);
  }
  return loss;
}

void apply(const KeyMix& mix, const Heads& source, const std::vector<int64_t>& group, int64_t g,
           Heads& result) {
  ComplexMatrix key = ComplexMatrix::Zero(source.head_dim / 2, source.inputs());
  for (size_t a = 0; a < group.size(); ++a) {
    key += mix.key.col(static_cast<int64_t>(a)).asDiagonal() * planes(source.k_of(group[a]));
  }
  result.k_of(g) = from_planes(key);
  const int64_t first = result.q_begin[static_cast<size_t>(g)];
  for (int64_t i = 0; i < mix.query.cols(); ++i) {
    result.q_of(first + i) =
        from_planes(mix.query.col(i).asDiagonal() * planes(result.q_of(first + i)));
  }
}

}  // namespace gqa
