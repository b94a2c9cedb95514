// Which pages topk and topp choose: what their definitions say, in double precision.
#include <gtest/gtest.h>

#include <algorithm>

#include "approx/block_summaries.h"
#include "approx/scores.h"
#include "gqa/approx.h"
#include "support/approx_choice.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::for_rows;
using test::Heads;
using test::is_best;
using test::product;
using test::Random;
using test::Tokens;
using test::wanted;

constexpr int64_t page = 64;

/// Pages of which all visible keys are seen; anything between is an error.
std::vector<bool> seen_pages(const std::vector<bool>& keys, int64_t t) {
  std::vector<bool> pages;
  for (int64_t p = 0; p * page <= t; ++p) {
    const int64_t end = std::min(t + 1, (p + 1) * page);
    const auto n = std::count(keys.begin() + p * page, keys.begin() + end, true);
    EXPECT_TRUE(n == 0 || n == end - p * page) << "page " << p << " is seen in part";
    pages.push_back(n > 0);
  }
  EXPECT_EQ(std::count(keys.begin() + t + 1, keys.end(), true), 0);
  EXPECT_TRUE(pages.front() && pages.back() &&
              pages[pages.size() - std::min<size_t>(2, pages.size())])
      << "the first and the last two are always chosen";
  return pages;
}

/// Keys of every page are of a size and around a point of its own, in some dimensions.
void make_pages_differ(Random& random, Tokens& x) {
  std::normal_distribution<float> normal;
  for (int64_t p = 0; p * page < x.n; ++p) {
    for (int64_t g = 0; g < x.kv_heads; ++g) {
      const float size = std::exp(normal(random));
      for (int64_t d = 0; d < x.head_dim; ++d) {
        const float centre = 0.5f * normal(random);
        for (int64_t s = p * page; s < std::min(x.n, (p + 1) * page); ++s) {
          x.key(s, g)[d] = size * (centre + 0.3f * x.key(s, g)[d]);
        }
      }
    }
  }
}

TEST(ApproxChoice, TopPagesAreThoseOfTheHighestBounds) {
  Context context({.threads = 2});
  Random random(91);
  for (const Heads& heads : test::choosing_heads) {
    for (const int64_t count : {1, 3, 4, 6}) {
      Tokens x(random, 640, heads, 20, 640);
      make_pages_differ(random, x);
      test::make_telling(x);
      int64_t decided = 0, choices = 0;
      const auto out = run(context, TopPages{count}, x, heads);
      for_rows(x, heads, out, [&](int64_t t, int64_t g, const auto& members, const auto& keys) {
        const std::vector<bool> pages = seen_pages(keys, t);
        const auto n = std::ssize(pages);
        ASSERT_EQ(std::count(pages.begin(), pages.end(), true),
                  std::min<int64_t>(n, std::max<int64_t>(3, count)));
        if (n <= 3) return;
        std::vector<std::vector<double>> bounds;
        double slack = 0;
        for (const int64_t h : members) {
          bounds.emplace_back();
          for (int64_t p = 1; p < n - 2; ++p) {
            double bound = 0, size = 0;
            for (int64_t d = 0; d < x.head_dim; ++d) {
              double most = -INFINITY, largest = 0;
              for (int64_t s = p * page; s < (p + 1) * page; ++s) {
                most = std::max(most, double{x.query(t, h)[d]} * x.key(s, g)[d]);
                largest = std::max(largest, std::abs(double{x.query(t, h)[d]} * x.key(s, g)[d]));
              }
              bound += x.scale() * most;
              size += x.scale() * largest;
            }
            bounds.back().push_back(bound);
            // Rounded outwards by a 128th, and then to bf16.
            slack = std::max(slack, 1.01 * (1.0 / 128 + 1.0 / 256) * size);
          }
        }
        const std::vector<bool> free(pages.begin() + 1, pages.end() - 2);
        ++choices;
        decided += is_best(wanted(bounds), free, 2 * slack);
      });
      EXPECT_GE(decided, choices / 3) << count;
    }
  }
}

/// Keys of alike sizes and queries along them leave the rounding of bounds nothing to hide behind.
TEST_P(Isa, NoKeyOfABlockExceedsItsBound) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(90);
  for (const KvDType t : test::kv_dtypes) {
    for (const int64_t dim : {7, 20, 64}) {
      const Heads heads = test::choosing_heads[1];
      Tokens x(random, 330, heads, dim, 1);
      const bool alike = test::draw(random, 0, 1) != 0;
      for (float& value : x.k) value = alike ? 1 + 1e-3f * value : value;
      KvCache cache(x.shape(t));
      const int64_t id = cache.create();
      append(context, cache, id, x, 0, x.n);
      std::vector<float> k(x.k.size()), v(x.v.size());
      cache.read(id, 0, 0, x.n, k.data(), v.data());
      const auto item = item_of(id, x, 0, x.n, nullptr);
      const Approximation::Options options;
      const Call call{context, cache, 0, item, options};
      BlockSummaries bounds(cache.shape(), page, BlockSummaries::Kind::bounds);
      const PackedKv summaries = bounds.update(call);
      ASSERT_EQ(summaries.len(), x.n / page);
      Scores scores;
      std::vector<float> query(static_cast<size_t>(2 * dim));
      for (int64_t i = 0; i < x.n * x.kv_heads; ++i) {
        const float* q = x.query(i % x.n, 0);
        bounds.expand_query({q, static_cast<size_t>(dim)}, query.data());
        const int64_t g = i % x.kv_heads;
        scores.compute(call.kernels(), summaries, g, query.data(), 1, 0.5f, summaries.len());
        for (int64_t s = 0; s < summaries.len() * page; ++s) {
          const float* key = k.data() + (s * x.kv_heads + g) * dim;
          ASSERT_GE(scores.row(0)[s / page], product(q, key, dim, 0.5).score)
              << kv_dtype_name(t) << ", key " << s;
        }
      }
    }
  }
}

TEST(ApproxChoice, TopMassTakesPagesUntilEveryHeadHasItsShare) {
  Context context({.threads = 2});
  Random random(92);
  for (const Heads& heads : test::choosing_heads) {
    for (const double mass : {0.4, 0.5, 0.7, 0.9}) {
      Tokens x(random, 640, heads, 20, 640);
      make_pages_differ(random, x);
      test::make_telling(x);
      int64_t some = 0, choices = 0;
      const auto out = run(context, TopMass{mass}, x, heads);
      for_rows(x, heads, out, [&](int64_t t, int64_t g, const auto& members, const auto& keys) {
        const std::vector<bool> pages = seen_pages(keys, t);
        const auto n = std::ssize(pages);
        if (n <= 3) {
          ASSERT_EQ(std::count(pages.begin(), pages.end(), true), n);
          return;
        }
        // share [head][page]: of whole pages by their mean, of its own by the keys.
        std::vector<std::vector<double>> share;
        for (const int64_t h : members) {
          std::vector<double> weight;
          for (int64_t p = 0; p < n; ++p) {
            double mean = 0, sum = 0;
            for (int64_t s = p * page; s < std::min(t + 1, (p + 1) * page); ++s) {
              const double score = product(x.query(t, h), x.key(s, g), x.head_dim, x.scale()).score;
              mean += score / page;
              sum += std::exp(score);
            }
            weight.push_back(p == n - 1 ? sum : page * std::exp(mean));
          }
          const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
          for (double& w : weight) w /= sum;
          share.push_back(std::move(weight));
        }
        std::vector<double> most(static_cast<size_t>(n - 3), 0.0);
        for (size_t p = 0; p < most.size(); ++p) {
          for (const auto& row : share) most[p] = std::max(most[p], row[p + 1]);
        }
        // Scores are below 100, in f32 chains of 20: shares are off by less than a thousandth.
        is_best(most, {pages.begin() + 1, pages.end() - 2}, 1e-3);
        const auto held = [&](const std::vector<double>& row, int64_t without) {
          double sum = 0;
          for (int64_t p = 0; p < n; ++p) {
            if (p != without && pages[static_cast<size_t>(p)]) sum += row[static_cast<size_t>(p)];
          }
          return sum;
        };
        int64_t last = -1;
        for (int64_t p = 1; p < n - 2; ++p) {
          if (!pages[static_cast<size_t>(p)]) continue;
          if (last < 0 || most[static_cast<size_t>(p - 1)] < most[static_cast<size_t>(last - 1)]) {
            last = p;
          }
        }
        double least = 1, before = 1;
        for (const auto& row : share) {
          least = std::min(least, held(row, -1));
          before = std::min(before, held(row, last));
        }
        const bool all = std::count(pages.begin(), pages.end(), true) == n;
        EXPECT_TRUE(all || least >= mass - 1e-3) << least;
        if (last >= 0) {
          EXPECT_LT(before, mass + 1e-3) << "page " << last << " was not needed";
        }
        ++choices;
        some += last >= 0 && !all;
      });
      EXPECT_GT(some, choices / 10) << mass;
    }
  }
}

}  // namespace
}  // namespace gqa
