// How alike heads are: what the formulas say, computed in another way, and what may not change it.
#include "regroup/head_similarity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/hidden_groups.h"

namespace gqa {
namespace {

/// Rounding errors of maps as badly conditioned as change_basis() makes them (e^2 a map, two maps
/// a pair of heads), over some hundred additions: far above, far below what another head makes.
constexpr double exact = 1e-9;

double largest_difference(const Matrix& a, const Matrix& b) {
  return (a - b).cwiseAbs().maxCoeff();
}

TEST(AlignedSimilarity, IsOneInsideHiddenGroupsAlone) {
  for (const auto& [kv_heads, q_per_kv] : {std::pair{2, 3}, {4, 2}, {3, 4}}) {
    const test::Hidden hidden = test::hide(static_cast<uint64_t>(kv_heads), kv_heads, q_per_kv);
    const AlignedSimilarity found =
        aligned_similarity(make_grams(hidden.heads, test::some_variance(23)));
    const auto shared = [&](int64_t i) { return hidden.from[static_cast<size_t>(i)] / q_per_kv; };
    for (const Matrix* matrix : {&found.keys, &found.values, &found.joint}) {
      ASSERT_EQ(matrix->rows(), kv_heads * q_per_kv);
      EXPECT_EQ(largest_difference(*matrix, matrix->transpose()), 0);
      for (int64_t a = 0; a < matrix->rows(); ++a) {
        EXPECT_EQ((*matrix)(a, a), 1);
        for (int64_t b = 0; b < a; ++b) {
          if (shared(a) == shared(b)) {
            EXPECT_NEAR((*matrix)(a, b), 1, exact);
          } else {
            EXPECT_LT((*matrix)(a, b), 0.9);
          }
        }
      }
    }
    EXPECT_EQ(largest_difference(found.joint, (found.keys + found.values) / 2), 0);
  }
}

struct Some {
  Heads heads;
  Matrix moments;
  Matrix root;  ///< moments = root root^T
};

Some some_heads(std::mt19937_64& random) {
  Some some;
  some.heads = test::random_heads(random, 5, 2, 8, 19, 17);
  some.root = test::random_matrix(random, 19, 40) / std::sqrt(40.0);
  some.moments = some.root * some.root.transpose();
  return some;
}

TEST(AlignedSimilarity, DoesNotDependOnTheBasis) {
  std::mt19937_64 random(5);
  const Some some = some_heads(random);
  Heads changed = some.heads;
  for (int64_t g = 0; g < changed.kv_heads(); ++g) test::change_basis(changed, g, random);
  const AlignedSimilarity one = aligned_similarity(make_grams(some.heads, some.moments));
  const AlignedSimilarity other = aligned_similarity(make_grams(changed, some.moments));
  EXPECT_LT(largest_difference(one.keys, other.keys), exact);
  EXPECT_LT(largest_difference(one.values, other.values), exact);
}

TEST(AlignedSimilarity, OfKeysIsTheFormula) {
  std::mt19937_64 random(7);
  const Some some = some_heads(random);
  const Matrix found = key_similarity(make_grams(some.heads, some.moments));
  const auto energy = [](const ComplexVector& x) { return x.squaredNorm(); };
  // Samples of the planes of a head's rows: one for each column of the root.
  const auto samples = [&](const Matrix& head) { return planes(head * some.root); };
  for (int64_t a = 0; a < 5; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      const ComplexMatrix one = samples(some.heads.k_of(a));
      const ComplexMatrix other = samples(some.heads.k_of(b));
      double shared = 0, all = 0;
      for (int64_t p = 0; p < 4; ++p) {
        double queries[2] = {0, 0};
        for (int64_t i = 0; i < 2; ++i) {
          queries[0] += energy(samples(some.heads.q_of(2 * a + i)).row(p));
          queries[1] += energy(samples(some.heads.q_of(2 * b + i)).row(p));
        }
        const double keys = energy(one.row(p)) * energy(other.row(p));
        const double s = std::sqrt(queries[0] * queries[1] * keys);
        shared += s * std::abs(one.row(p).dot(other.row(p))) / std::sqrt(keys);
        all += s;
      }
      EXPECT_NEAR(found(a, b), shared / all, exact) << a << " " << b;
    }
  }
}

TEST(AlignedSimilarity, OfValuesIsThatOfTheirSpaces) {
  std::mt19937_64 random(8);
  const Some some = some_heads(random);
  const Matrix found = value_similarity(make_grams(some.heads, some.moments));
  // Cosines of the principal angles between the row spaces (Björck and Golub 1973).
  const auto basis = [&](int64_t g) {
    const Eigen::MatrixXd rows = (some.heads.v_of(g) * some.root).transpose();
    return Eigen::MatrixXd(Eigen::HouseholderQR<Eigen::MatrixXd>(rows).householderQ() *
                           Eigen::MatrixXd::Identity(40, 8));
  };
  for (int64_t a = 0; a < 5; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      const Eigen::MatrixXd cross = basis(a).transpose() * basis(b);
      const double sum = Eigen::JacobiSVD<Eigen::MatrixXd>(cross).singularValues().sum();
      EXPECT_NEAR(found(a, b), sum / 8, exact) << a << " " << b;
    }
  }
}

/// Values that span less than head_dim, and heads that are nothing at all.
TEST(AlignedSimilarity, OfDegenerateHeads) {
  std::mt19937_64 random(9);
  Some some = some_heads(random);
  Heads& heads = some.heads;
  const Matrix narrow = test::random_matrix(random, 3, 19);
  heads.v_of(0) = test::random_matrix(random, 8, 3) * narrow;
  heads.v_of(1) = test::random_matrix(random, 8, 3) * narrow;
  heads.v_of(2).topRows(3) = narrow;  // spans what they do, and 5 dimensions more
  heads.v_of(3).setZero();
  heads.k_of(3).setZero();
  for (int64_t h = 0; h < 2; ++h) heads.q_of(h).setZero();  // nobody reads key 0
  const AlignedSimilarity found = aligned_similarity(make_grams(heads, some.moments));
  // Moments of what spans 3 of 8 dimensions leave 1e-16 of their size where there is nothing.
  EXPECT_NEAR(found.values(0, 1), 1, exact);
  EXPECT_NEAR(found.values(0, 2), 3 / std::sqrt(3.0 * 8), exact);
  for (int64_t other = 0; other < 5; ++other) {
    EXPECT_EQ(found.values(3, other), other == 3 ? 1 : 0);
    EXPECT_EQ(found.keys(3, other), other == 3 ? 1 : 0);
    EXPECT_EQ(found.keys(0, other), other == 0 ? 1 : 0);
  }
}

}  // namespace
}  // namespace gqa
