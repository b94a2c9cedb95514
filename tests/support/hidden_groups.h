// Heads whose groups are hidden: a few shared heads, each written in many bases.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>

#include "regroup/heads.h"

namespace gqa::test {

inline Matrix random_matrix(std::mt19937_64& random, int64_t rows, int64_t cols) {
  std::normal_distribution<double> normal;
  Matrix m(rows, cols);
  for (int64_t i = 0; i < m.size(); ++i) m.data()[i] = normal(random);
  return m;
}

/// A complex factor, neither tiny nor huge.
inline std::complex<double> random_factor(std::mt19937_64& random) {
  std::uniform_real_distribution<double> angle(0, 6.283185307179586);
  std::uniform_real_distribution<double> log_size(-1, 1);
  return std::polar(std::exp(log_size(random)), angle(random));
}

/// Writes KV head g, and the queries and outputs that read it, in another basis, which changes
/// nothing that the layer computes: key planes times complex factors, values through a map.
inline void change_basis(Heads& heads, int64_t g, std::mt19937_64& random) {
  const int64_t half = heads.head_dim / 2;
  ComplexVector factors(half);
  for (int64_t p = 0; p < half; ++p) factors[p] = random_factor(random);
  // q conj(k): k takes c, q takes 1 / conj(c).
  const ComplexVector inverse = factors.conjugate().cwiseInverse();
  // Well conditioned: a rotation and stretches up to e.
  const Matrix any = random_matrix(random, heads.head_dim, heads.head_dim);
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(any, Eigen::ComputeFullU | Eigen::ComputeFullV);
  Vector stretch(heads.head_dim);
  std::uniform_real_distribution<double> log_size(-1, 1);
  for (int64_t i = 0; i < stretch.size(); ++i) stretch[i] = std::exp(log_size(random));
  const Matrix map = svd.matrixU() * stretch.asDiagonal() * svd.matrixV().transpose();
  const Matrix back =
      svd.matrixV() * stretch.cwiseInverse().asDiagonal() * svd.matrixU().transpose();
  heads.k_of(g) = from_planes(factors.asDiagonal() * planes(heads.k_of(g)));
  heads.v_of(g) = Matrix(map * heads.v_of(g));
  const auto at = static_cast<size_t>(g);
  for (int64_t h = heads.q_begin[at]; h < heads.q_begin[at + 1]; ++h) {
    heads.q_of(h) = from_planes(inverse.asDiagonal() * planes(heads.q_of(h)));
    heads.o_of(h) = Matrix(heads.o_of(h) * back);
  }
}

inline Heads random_heads(std::mt19937_64& random, int64_t kv_heads, int64_t q_per_kv,
                          int64_t head_dim, int64_t inputs, int64_t width) {
  Heads heads;
  heads.head_dim = head_dim;
  for (int64_t g = 0; g <= kv_heads; ++g) heads.q_begin.push_back(g * q_per_kv);
  heads.q = random_matrix(random, heads.q_heads() * head_dim, inputs);
  heads.k = random_matrix(random, kv_heads * head_dim, inputs);
  heads.v = random_matrix(random, kv_heads * head_dim, inputs);
  heads.o = random_matrix(random, width, heads.q_heads() * head_dim);
  return heads;
}

/// Every KV head once for each query head that reads it.
inline Heads expanded(const Heads& heads) {
  Heads result = heads;
  result.q_begin.clear();
  for (int64_t h = 0; h <= heads.q_heads(); ++h) result.q_begin.push_back(h);
  result.k.resize(heads.q.rows(), heads.inputs());
  result.v.resize(heads.q.rows(), heads.inputs());
  for (int64_t g = 0; g < heads.kv_heads(); ++g) {
    const auto at = static_cast<size_t>(g);
    for (int64_t h = heads.q_begin[at]; h < heads.q_begin[at + 1]; ++h) {
      result.k_of(h) = heads.k_of(g);
      result.v_of(h) = heads.v_of(g);
    }
  }
  return result;
}

/// KV head i of the result, with its queries, is KV head order[i].
inline Heads reordered(const Heads& heads, const std::vector<int64_t>& order) {
  HeadGroups alone;
  for (const int64_t g : order) alone.push_back({g});
  Heads result = regrouped(heads, alone);
  for (size_t i = 0; i < order.size(); ++i) {
    result.k_of(static_cast<int64_t>(i)) = heads.k_of(order[i]);
    result.v_of(static_cast<int64_t>(i)) = heads.v_of(order[i]);
  }
  return result;
}

struct Hidden {
  Heads original;             ///< few KV heads
  Heads heads;                ///< as many as query heads, in other bases, shuffled
  std::vector<int64_t> from;  ///< query head of the original
  HeadGroups groups;          ///< in canonical order
};

/// kv_heads heads, read by q_per_kv query heads each, to find again.
inline Hidden hide(uint64_t seed, int64_t kv_heads, int64_t q_per_kv) {
  std::mt19937_64 random(seed);
  Hidden hidden;
  hidden.original = random_heads(random, kv_heads, q_per_kv, 6, 23, 21);
  Heads all = expanded(hidden.original);
  for (int64_t g = 0; g < all.kv_heads(); ++g) change_basis(all, g, random);
  hidden.from.resize(static_cast<size_t>(all.kv_heads()));
  std::iota(hidden.from.begin(), hidden.from.end(), 0);
  std::shuffle(hidden.from.begin(), hidden.from.end(), random);
  hidden.heads = reordered(all, hidden.from);
  hidden.groups.resize(static_cast<size_t>(kv_heads));
  for (size_t i = 0; i < hidden.from.size(); ++i) {
    hidden.groups[static_cast<size_t>(hidden.from[i] / q_per_kv)].push_back(
        static_cast<int64_t>(i));
  }
  std::sort(hidden.groups.begin(), hidden.groups.end());
  return hidden;
}

/// Inputs that do not all vary alike.
inline Vector some_variance(int64_t n) {
  Vector variance(n);
  for (int64_t i = 0; i < n; ++i) variance[i] = 0.3 + 0.1 * static_cast<double>(i % 7);
  return variance;
}

/// The scores' bilinear form of query head h in each plane, conj(k)^T q as one matrix, and O V:
/// all that a head computes, whatever its basis.
struct HeadFunction {
  std::vector<ComplexMatrix> scores;
  Matrix output;
};

inline HeadFunction function_of(const Heads& heads, int64_t h) {
  int64_t g = 0;
  while (heads.q_begin[static_cast<size_t>(g) + 1] <= h) ++g;
  const ComplexMatrix q = planes(heads.q_of(h));
  const ComplexMatrix k = planes(heads.k_of(g));
  HeadFunction function;
  for (int64_t p = 0; p < q.rows(); ++p) {
    function.scores.emplace_back(q.row(p).transpose() * k.row(p).conjugate());
  }
  function.output = heads.o_of(h) * heads.v_of(g);
  return function;
}

/// The largest difference of what two heads compute, relative to the first's largest.
inline double difference(const HeadFunction& a, const HeadFunction& b) {
  double worst = (a.output - b.output).cwiseAbs().maxCoeff() / a.output.cwiseAbs().maxCoeff();
  for (size_t p = 0; p < a.scores.size(); ++p) {
    worst = std::max(worst, (a.scores[p] - b.scores[p]).cwiseAbs().maxCoeff() /
                                a.scores[p].cwiseAbs().maxCoeff());
  }
  return worst;
}

}  // namespace gqa::test
