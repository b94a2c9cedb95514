#include "regroup/head_similarity.h"

#include <algorithm>
#include <cmath>

#include "regroup/decompositions.h"
#include "regroup/values.h"

namespace gqa {
namespace {

/// similarity(a, b) for every pair.
template <typename Similarity>
Matrix of_pairs(int64_t n, const Similarity& similarity) {
  Matrix all = Matrix::Identity(n, n);
  for (int64_t a = 0; a < n; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      all(a, b) = std::min(similarity(a, b), 1.0);  // but for rounding it is
      all(b, a) = all(a, b);
    }
  }
  return all;
}

}  // namespace

Matrix score_energy(const HeadGrams& grams) {
  Matrix energy(grams.head_dim / 2, grams.kv_heads());
  for (int64_t p = 0; p < energy.rows(); ++p) {
    for (int64_t a = 0; a < energy.cols(); ++a) {
      const double weight = grams.query_weight(p, a);
      const double keys = grams.keys[static_cast<size_t>(p)](a, a).real();
      energy(p, a) = weight * weight * std::max(keys, 0.0);
    }
  }
  return energy;
}

Matrix key_similarity(const HeadGrams& grams) {
  const Matrix energy = score_energy(grams);
  return of_pairs(grams.kv_heads(), [&](int64_t a, int64_t b) {
    double shared = 0;
    double most = 0;
    for (int64_t p = 0; p < energy.rows(); ++p) {
      // Times s(p), a correlation is the weighted cross-moment: nothing to divide in a plane.
      const double weight = grams.query_weight(p, a) * grams.query_weight(p, b);
      shared += weight * std::abs(grams.keys[static_cast<size_t>(p)](a, b));
      most += std::sqrt(energy(p, a)) * std::sqrt(energy(p, b));
    }
    return most > 0 ? shared / most : 0.0;
  });
}

Matrix value_similarity(const HeadGrams& grams) {
  std::vector<Whitening> bases;
  for (int64_t g = 0; g < grams.kv_heads(); ++g) bases.push_back(whiten(grams.value_block(g, g)));
  return of_pairs(grams.kv_heads(), [&](int64_t a, int64_t b) {
    const Whitening& one = bases[static_cast<size_t>(a)];
    const Whitening& other = bases[static_cast<size_t>(b)];
    if (one.rank == 0 || other.rank == 0) return 0.0;
    const Eigen::MatrixXd cross = one.map * grams.value_block(a, b) * other.map.transpose();
    return singular_values(cross).cwiseMin(1.0).sum() /
           std::sqrt(static_cast<double>(one.rank) * static_cast<double>(other.rank));
  });
}

AlignedSimilarity aligned_similarity(const HeadGrams& grams) {
  AlignedSimilarity result{key_similarity(grams), value_similarity(grams), {}};
  result.joint = 0.5 * (result.keys + result.values);
  return result;
}

}  // namespace gqa
