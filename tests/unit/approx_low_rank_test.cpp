// Which keys lowrank chooses: what its definition says, in double precision.
#include <gtest/gtest.h>

#include <algorithm>

#include "gqa/approx.h"
#include "support/approx_choice.h"
#include "support/approx_directions.h"

namespace gqa {
namespace {

using test::for_rows;
using test::Heads;
using test::is_best;
using test::product;
using test::Random;
using test::Tokens;
using test::wanted;

/// Checks lowrank:R,KEYS from token `first` on: products in the directions [kv_heads][rank][dim]
/// (none: of keys themselves), whose keys are rounded by a share `rounding`.
void check_low_rank(const Tokens& x, const Heads& heads, const std::vector<float>& out,
                    int64_t keys_chosen, int64_t first, const std::vector<float>& directions,
                    int64_t rank, int64_t step, double rounding) {
  const auto shares = [&](const float* row, int64_t g) {
    std::vector<double> result;
    for (int64_t r = 0; r < rank; ++r) {
      const float* direction = directions.data() + g * step + r * x.head_dim;
      result.push_back(directions.empty() ? row[r]
                                          : product(direction, row, x.head_dim, 1.0).score);
    }
    return result;
  };
  std::vector<std::vector<double>> keys;
  for (int64_t s = 0; s < x.n; ++s) {
    for (int64_t g = 0; g < x.kv_heads; ++g) keys.push_back(shares(x.key(s, g), g));
  }
  int64_t decided = 0, choices = 0;
  for_rows(x, heads, out, [&](int64_t t, int64_t g, const auto& members, const auto& seen) {
    const int64_t count = t < first ? t + 1 : std::min(t + 1, keys_chosen);
    ASSERT_EQ(std::count(seen.begin(), seen.end(), true), count);
    ASSERT_TRUE(seen[static_cast<size_t>(t)]) << "its own key";
    if (count == t + 1) return;
    std::vector<std::vector<double>> scores;
    double slack = 0;
    for (const int64_t h : members) {
      const std::vector<double> query = shares(x.query(t, h), g);
      scores.emplace_back();
      for (int64_t s = 0; s < t; ++s) {
        const auto p = product(query.data(), keys[static_cast<size_t>(s * x.kv_heads + g)].data(),
                               rank, x.scale());
        scores.back().push_back(p.score);
        // Chains of f32, of a product and perhaps of projecting both.
        const double chains = static_cast<double>(2 * rank + 4 * x.head_dim + 8) * 0x1p-24;
        slack = std::max(slack, (rounding + chains) * p.size);
      }
    }
    ++choices;
    // Differences of two scores, each compared after the largest was subtracted.
    decided += count == 1 || is_best(wanted(scores), {seen.begin(), seen.begin() + t}, 4 * slack);
  });
  // What each head wants most is wanted equally: few keys leave ties.
  if (rounding == 0 && keys_chosen > 10) {
    EXPECT_GE(decided, choices * 9 / 10);
  }
}

TEST(ApproxLowRank, OfFullRankTakesTheKeysThatScoreHighest) {
  Context context({.threads = 2});
  Random random(93);
  for (const Heads& heads : test::choosing_heads) {
    for (const int64_t keys : {1, 2, 30, 64, 200}) {
      Tokens x(random, 300, heads, 20, 300);
      test::make_telling(x);
      check_low_rank(x, heads, run(context, LowRank{20, keys}, x, heads), keys, 0, {}, 20, 0, 0);
    }
  }
}

TEST(ApproxLowRank, ScoresInTheDirectionsOfEachKvHead) {
  Context context({.threads = 2});
  Random random(94);
  for (const Heads& heads : test::choosing_heads) {
    for (const int64_t keys : {1, 5, 60, 150}) {
      Tokens x(random, 300, heads, 20, 300);
      test::make_telling(x);
      const KeyDirections directions = test::random_directions(random, heads.kv_heads, 20);
      const auto out = run(context, LowRank{4, keys}, x, heads, KvDType::f32, 1 << 20, directions);
      check_low_rank(x, heads, out, keys, 0, directions.layers[0], 4, 400, 1.0 / 256);
    }
  }
}

/// Where keys lie in a space of 3 dimensions, a different one for each KV head, 3 directions are
/// enough to find those that score highest.
TEST(ApproxLowRank, FindsDirectionsInTheFirst256Keys) {
  Context context({.threads = 2});
  Random random(95);
  for (const Heads& heads : test::choosing_heads) {
    Tokens x(random, 400, heads, 20, 400);
    const KeyDirections spaces = test::random_directions(random, heads.kv_heads, 20);
    for (int64_t s = 0; s < x.n; ++s) {
      for (int64_t g = 0; g < x.kv_heads; ++g) {
        const std::vector<float> share(x.key(s, g), x.key(s, g) + 3);
        for (int64_t d = 0; d < 20; ++d) {
          x.key(s, g)[d] = 0;
          for (int64_t r = 0; r < 3; ++r) {
            x.key(s, g)[d] += share[static_cast<size_t>(r)] *
                              spaces.layers[0][static_cast<size_t>(g * 400 + r * 20 + d)];
          }
        }
      }
    }
    test::make_telling(x);
    for (const int64_t keys : {10, 100}) {
      const auto out = run(context, LowRank{3, keys}, x, heads);
      // Which basis of the space it takes is open: bf16 rounds shares in any by 1/256, together at
      // most sqrt(3) times what the products of one basis come to.
      check_low_rank(x, heads, out, keys, 256, spaces.layers[0], 3, 400, 3.0 / 256);
    }
  }
}

}  // namespace
}  // namespace gqa
