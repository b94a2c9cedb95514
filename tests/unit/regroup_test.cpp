// Heads to fewer heads: what may not change, and what must be found.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "regroup/head_prices.h"
#include "regroup/layer_study.h"
#include "regroup/merge_heads.h"
#include "regroup/partition.h"
#include "support/hidden_groups.h"

namespace gqa {
namespace {

using test::Hidden;
using test::hide;
using test::some_variance;

/// Rounding errors of maps as badly conditioned as change_basis() makes them (e^2 a map, two maps
/// a pair of heads), over some hundred additions: far above, far below what a wrong head makes.
constexpr double exact = 1e-9;

TEST(HiddenGroups, AreFoundAndMergedExactly) {
  for (const auto& [kv_heads, q_per_kv] : {std::pair{2, 3}, {4, 2}, {3, 4}, {8, 3}}) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      const Hidden hidden = hide(seed, kv_heads, q_per_kv);
      const HeadGrams grams = make_grams(hidden.heads, some_variance(23));
      const HeadPrices prices(grams);
      const HeadGroups found =
          cheapest_partition({.heads = hidden.heads.kv_heads(), .groups = kv_heads, .seed = seed},
                             [&](const std::vector<int64_t>& group) { return prices(group); });
      ASSERT_EQ(found, hidden.groups);
      for (const HeadMerge how : {HeadMerge::aligned, HeadMerge::principal}) {
        const Heads merged = merge_heads(hidden.heads, grams, found, how);
        ASSERT_EQ(merged.kv_heads(), kv_heads);
        int64_t at = 0;
        for (const auto& group : found) {
          for (const int64_t h : group) {
            const auto want =
                test::function_of(hidden.original, hidden.from[static_cast<size_t>(h)]);
            EXPECT_LT(test::difference(want, test::function_of(merged, at++)), exact);
          }
        }
      }
    }
  }
}

TEST(HiddenGroups, ResultsDoNotDependOnTheBasis) {
  std::mt19937_64 random(5);
  const Heads heads = test::random_heads(random, 6, 2, 8, 19, 17);
  Heads changed = heads;
  for (int64_t g = 0; g < heads.kv_heads(); ++g) test::change_basis(changed, g, random);
  const HeadGroups groups{{0, 3}, {1, 2, 5}, {4}};
  const Matrix any = test::random_matrix(random, 19, 40);
  const Matrix moments = any * any.transpose() / 40.0;
  const HeadGrams one = make_grams(heads, moments);
  const HeadGrams other = make_grams(changed, moments);
  for (const auto& group : groups) {
    EXPECT_NEAR(key_loss(one, group).lost, key_loss(other, group).lost,
                exact * key_loss(one, group).total);
    EXPECT_NEAR(value_loss(one, group).lost, value_loss(other, group).lost,
                exact * value_loss(one, group).total);
  }
  for (const HeadMerge how : {HeadMerge::aligned, HeadMerge::principal}) {
    const Heads a = merge_heads(heads, one, groups, how);
    const Heads b = merge_heads(changed, other, groups, how);
    for (int64_t h = 0; h < a.q_heads(); ++h) {
      EXPECT_LT(test::difference(test::function_of(a, h), test::function_of(b, h)), 1e-6) << h;
    }
  }
}

/// What the principal key and value lose is what their prices say, and no more than the mean loses.
TEST(Principal, LosesWhatItsPriceSays) {
  std::mt19937_64 random(7);
  const Heads heads = test::random_heads(random, 4, 2, 4, 15, 11);
  const Matrix any = test::random_matrix(random, 15, 30);
  const Matrix moments = any * any.transpose() / 30.0;
  const HeadGrams grams = make_grams(heads, moments);
  const std::vector<int64_t> group{0, 1, 3};
  const Heads merged = merge_heads(heads, grams, {group, {2}}, HeadMerge::principal);
  double scores = 0;
  double outputs = 0;
  const std::vector<int64_t> query_heads = query_heads_of(heads, group);
  for (size_t i = 0; i < query_heads.size(); ++i) {
    const auto before = test::function_of(heads, query_heads[i]);
    const auto after = test::function_of(merged, static_cast<int64_t>(i));
    for (size_t p = 0; p < before.scores.size(); ++p) {
      const ComplexMatrix lost = before.scores[p] - after.scores[p];
      // E|x^T M y|^2 of independent x and y with these moments.
      scores += (moments * lost * moments * lost.adjoint()).trace().real();
    }
    const Matrix lost = before.output - after.output;
    outputs += (lost * moments * lost.transpose()).trace();
  }
  EXPECT_NEAR(scores, key_loss(grams, group).lost, 1e-9 * scores);
  EXPECT_NEAR(outputs, value_loss(grams, group).lost, 1e-9 * outputs);
  EXPECT_GT(scores, 0);
  EXPECT_GT(outputs, 0);
}

TEST(Partition, IsTheCheapest) {
  std::mt19937_64 random(3);
  for (const bool equal : {true, false}) {
    std::vector<double> prices(64);  // by the set of heads
    for (double& p : prices) p = std::uniform_real_distribution<double>(0, 1)(random);
    const auto price = [&](const std::vector<int64_t>& group) {
      size_t set = 0;
      for (const int64_t h : group) set |= size_t{1} << h;
      return prices[set];
    };
    std::set<std::vector<int64_t>> asked;
    const GroupCost cost = [&](const std::vector<int64_t>& group) {
      EXPECT_TRUE(asked.insert(group).second) << "asked for twice";
      return price(group);
    };
    const HeadGroups found = cheapest_partition({.heads = 6, .groups = 3, .equal = equal}, cost);
    // Every way to give each head one of three groups.
    double best = 1e9;
    HeadGroups wanted;
    for (int code = 0; code < 729; ++code) {
      HeadGroups groups(3);
      for (int64_t h = 0, c = code; h < 6; ++h, c /= 3)
        groups[static_cast<size_t>(c % 3)].push_back(h);
      double total = 0;
      bool fits = true;
      for (const auto& group : groups) {
        fits = fits && !group.empty() && (!equal || group.size() == 2);
        if (fits) total += price(group);
      }
      if (!fits || total >= best) continue;
      best = total;
      wanted = groups;
    }
    std::sort(wanted.begin(), wanted.end());
    EXPECT_EQ(found, wanted);
  }
}

TEST(Partition, ManyHeadsAreSearched) {
  // 32 heads on a line; a group costs its spread.
  std::vector<double> place(32);
  std::mt19937_64 random(11);
  for (double& p : place) p = std::uniform_real_distribution<double>(0, 1)(random);
  const GroupCost cost = [&](const std::vector<int64_t>& group) {
    double mean = 0, spread = 0;
    for (const int64_t h : group)
      mean += place[static_cast<size_t>(h)] / static_cast<double>(group.size());
    for (const int64_t h : group) spread += std::pow(place[static_cast<size_t>(h)] - mean, 2);
    return spread;
  };
  const auto total = [&](const HeadGroups& groups) {
    double sum = 0;
    for (const auto& group : groups) sum += cost(group);
    return sum;
  };
  std::vector<int64_t> order(32);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return place[static_cast<size_t>(a)] < place[static_cast<size_t>(b)];
  });
  HeadGroups sorted;  // the best there is with equal groups
  for (size_t i = 0; i < 8; ++i) {
    sorted.emplace_back(order.begin() + static_cast<int64_t>(4 * i),
                        order.begin() + static_cast<int64_t>(4 * i + 4));
  }
  const HeadGroups found = cheapest_partition({.heads = 32, .groups = 8, .seed = 1}, cost);
  EXPECT_LT(total(found), 1.1 * total(sorted));
  EXPECT_EQ(found, cheapest_partition({.heads = 32, .groups = 8, .seed = 1}, cost));
  const HeadGroups free =
      cheapest_partition({.heads = 32, .groups = 8, .equal = false, .seed = 1}, cost);
  EXPECT_LE(total(free), 1.1 * total(sorted));
  for (const HeadGroups& groups : {found, free}) {
    std::vector<int64_t> all;
    for (const auto& group : groups) all.insert(all.end(), group.begin(), group.end());
    std::sort(all.begin(), all.end());
    EXPECT_EQ(all.size(), 32u);
    EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
  }
}

}  // namespace
}  // namespace gqa
