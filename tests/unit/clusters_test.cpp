// Groups of heads that are alike, and groups that share importance out.
#include "regroup/clusters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "regroup/head_similarity.h"
#include "regroup/key_driven.h"
#include "regroup/partition.h"
#include "support/hidden_groups.h"

namespace gqa {
namespace {

/// The sum that kernel k-means makes large, as it is written down.
double total(const Matrix& similarity, const HeadGroups& groups) {
  double sum = 0;
  for (const auto& group : groups) {
    for (const int64_t a : group) {
      for (const int64_t b : group) sum += similarity(a, b) / static_cast<double>(group.size());
    }
  }
  return sum;
}

/// visit(groups) for every way to give each head one of n groups, none empty.
template <typename Visit>
void for_partitions(int64_t heads, int64_t n, const Visit& visit) {
  int64_t codes = 1;
  for (int64_t h = 0; h < heads; ++h) codes *= n;
  for (int64_t code = 0; code < codes; ++code) {
    HeadGroups groups(static_cast<size_t>(n));
    for (int64_t h = 0, c = code; h < heads; ++h, c /= n) {
      groups[static_cast<size_t>(c % n)].push_back(h);
    }
    if (std::ranges::none_of(groups, [](const auto& g) { return g.empty(); })) visit(groups);
  }
}

bool equal_sizes(const HeadGroups& groups) {
  return std::ranges::all_of(groups, [&](const auto& g) { return g.size() == groups[0].size(); });
}

/// Symmetric, 1 on the diagonal, otherwise anything from 0 to 1: hardly ever an inner product.
Matrix random_similarity(std::mt19937_64& random, int64_t n) {
  std::uniform_real_distribution<double> any(0, 1);
  Matrix similarity = Matrix::Identity(n, n);
  for (int64_t a = 0; a < n; ++a) {
    for (int64_t b = 0; b < a; ++b) similarity(a, b) = similarity(b, a) = any(random);
  }
  return similarity;
}

void expect_parted(const HeadGroups& groups, int64_t heads, int64_t n) {
  ASSERT_EQ(std::ssize(groups), n);
  std::vector<int64_t> all;
  for (const auto& group : groups) {
    EXPECT_FALSE(group.empty());
    all.insert(all.end(), group.begin(), group.end());
  }
  std::ranges::sort(all);
  std::vector<int64_t> wanted(static_cast<size_t>(heads));
  std::iota(wanted.begin(), wanted.end(), 0);
  EXPECT_EQ(all, wanted);
  EXPECT_EQ(groups, canonical(groups));
}

TEST(Clusters, FindHiddenGroups) {
  for (const auto& [kv_heads, q_per_kv] : {std::pair{2, 3}, {4, 2}, {3, 4}, {8, 3}}) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      const test::Hidden hidden = test::hide(seed, kv_heads, q_per_kv);
      const AlignedSimilarity alike =
          aligned_similarity(make_grams(hidden.heads, test::some_variance(23)));
      for (const Matrix* similarity : {&alike.keys, &alike.values, &alike.joint}) {
        for (const bool equal : {true, false}) {
          EXPECT_EQ(cluster_heads(*similarity, {.groups = kv_heads, .equal = equal, .seed = seed}),
                    hidden.groups);
        }
      }
    }
  }
}

TEST(Clusters, OfHiddenGroupsOfAnySize) {
  const HeadGroups hidden{{0, 3, 4, 7, 8}, {1}, {2, 6}, {5}};
  Matrix similarity = Matrix::Constant(9, 9, 0.4);
  for (const auto& group : hidden) {
    for (const int64_t a : group) {
      for (const int64_t b : group) similarity(a, b) = 1;
    }
  }
  EXPECT_EQ(cluster_heads(similarity, {.groups = 4, .equal = false}), hidden);
}

/// Nothing hidden, no inner product: still the best there is, among few heads.
TEST(Clusters, AreTheBestOfFewHeads) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 20; ++round) {
    const Matrix similarity = random_similarity(random, 8);
    for (const auto& [n, equal] : {std::pair{2, true}, {4, true}, {2, false}, {3, false}}) {
      double best = -std::numeric_limits<double>::infinity();
      for_partitions(8, n, [&](const HeadGroups& groups) {
        if (!equal || equal_sizes(groups)) best = std::max(best, total(similarity, groups));
      });
      const HeadGroups found = cluster_heads(similarity, {.groups = n, .equal = equal});
      expect_parted(found, 8, n);
      EXPECT_TRUE(!equal || equal_sizes(found));
      EXPECT_NEAR(total(similarity, found), best, 1e-11) << n << " " << equal;
    }
  }
}

/// Among many heads: no single change makes the groups better.
TEST(Clusters, LeaveNoChangeThatHelps) {
  std::mt19937_64 random(4);
  const Matrix similarity = random_similarity(random, 24);
  for (const bool equal : {true, false}) {
    HeadGroups groups = cluster_heads(similarity, {.groups = 6, .equal = equal, .seed = 1});
    expect_parted(groups, 24, 6);
    EXPECT_TRUE(!equal || equal_sizes(groups));
    EXPECT_EQ(groups, cluster_heads(similarity, {.groups = 6, .equal = equal, .seed = 1}));
    const double found = total(similarity, groups) + 1e-10;
    for (auto& one : groups) {
      for (auto& other : groups) {
        if (&one == &other) continue;
        for (size_t i = 0; i < one.size(); ++i) {
          for (size_t j = 0; j < other.size(); ++j) {
            std::swap(one[i], other[j]);
            EXPECT_LE(total(similarity, groups), found);
            std::swap(one[i], other[j]);
          }
          if (equal || one.size() == 1) continue;
          const int64_t head = one[i];
          one.erase(one.begin() + static_cast<int64_t>(i));
          other.push_back(head);
          EXPECT_LE(total(similarity, groups), found);
          other.pop_back();
          one.insert(one.begin() + static_cast<int64_t>(i), head);
        }
      }
    }
  }
}

TEST(Clusters, OfHeadsThatAreAllTheSameOrAllApart) {
  for (const bool equal : {true, false}) {
    expect_parted(cluster_heads(Matrix::Ones(6, 6), {.groups = 3, .equal = equal}), 6, 3);
    expect_parted(cluster_heads(Matrix::Identity(6, 6), {.groups = 2, .equal = equal}), 6, 2);
    expect_parted(cluster_heads(Matrix::Ones(6, 6), {.groups = 6, .equal = equal}), 6, 6);
    expect_parted(cluster_heads(Matrix::Identity(6, 6), {.groups = 1, .equal = equal}), 6, 1);
  }
}

/// Heads of one plane, with these importances.
HeadGrams grams_of(const std::vector<double>& importances) {
  HeadGrams grams;
  grams.head_dim = 2;
  const auto n = std::ssize(importances);
  for (int64_t g = 0; g <= n; ++g) grams.q_begin.push_back(g);
  grams.keys.push_back(ComplexMatrix::Identity(n, n));
  grams.queries = Eigen::Map<const Vector>(importances.data(), n).transpose();
  return grams;
}

TEST(KeyDriven, HeadsThatMatterShareWithFew) {
  EXPECT_EQ(key_driven_groups(grams_of({1, 9, 1, 1, 2, 5}), 3),
            (HeadGroups{{0, 2, 3, 4}, {1}, {5}}));
  EXPECT_EQ(key_driven_groups(grams_of({0, 0, 7, 0}), 3).size(), 3u);
  expect_parted(key_driven_groups(grams_of({0, 0, 7, 0}), 3), 4, 3);
  expect_parted(key_driven_groups(grams_of({3, 3, 3, 3}), 4), 4, 4);
}

TEST(KeyDriven, CarriesLittleMoreThanItMust) {
  std::mt19937_64 random(6);
  std::lognormal_distribution<double> any(0, 1);
  for (int round = 0; round < 20; ++round) {
    std::vector<double> importances(7);
    for (double& x : importances) x = any(random);
    const auto most = [&](const HeadGroups& groups) {
      double load = 0;
      for (const auto& group : groups) {
        double sum = 0;
        for (const int64_t h : group) sum += importances[static_cast<size_t>(h)];
        load = std::max(load, sum);
      }
      return load;
    };
    double least = std::numeric_limits<double>::infinity();
    for_partitions(7, 3, [&](const HeadGroups& g) { least = std::min(least, most(g)); });
    const HeadGroups found = key_driven_groups(grams_of(importances), 3);
    expect_parted(found, 7, 3);
    EXPECT_LE(most(found), (4.0 / 3 - 1.0 / 9) * least * (1 + 1e-12));
  }
}

TEST(KeyDriven, DoesNotDependOnTheBasis) {
  std::mt19937_64 random(5);
  const Heads heads = test::random_heads(random, 6, 2, 8, 19, 17);
  Heads changed = heads;
  for (int64_t g = 0; g < heads.kv_heads(); ++g) test::change_basis(changed, g, random);
  const HeadGrams one = make_grams(heads, test::some_variance(19));
  const HeadGrams other = make_grams(changed, test::some_variance(19));
  const Vector matters = importance(one);
  EXPECT_LT((importance(other) - matters).cwiseAbs().maxCoeff(), 1e-12 * matters.sum());
  EXPECT_GT(matters.maxCoeff() - matters.minCoeff(), 0.01 * matters.sum());
  EXPECT_EQ(key_driven_groups(one, 3), key_driven_groups(other, 3));
  // A head whose scores are twice as large matters four times as much.
  Heads louder = heads;
  louder.q_of(4) *= 2;
  louder.q_of(5) *= 2;
  EXPECT_NEAR(importance(make_grams(louder, test::some_variance(19)))[2], 4 * matters[2],
              1e-12 * matters[2]);
}

}  // namespace
}  // namespace gqa
