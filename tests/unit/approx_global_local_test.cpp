// global-local: what its definition says, in double precision.
#include <gtest/gtest.h>

#include <algorithm>

#include "gqa/approx.h"
#include "support/approx_case.h"

namespace gqa {
namespace {

using test::Heads;
using test::product;
using test::Random;
using test::SoftmaxRows;
using test::Term;
using test::Tokens;

TEST(ApproxGlobalLocal, AddsTheLogOfTheBlockToTheScoresOfMeans) {
  Context context({.threads = 2});
  Random random(101);
  for (const Heads& heads : std::vector<Heads>{{4, 2, {}}, {7, 3, {0, 1, 5, 7}}}) {
    const auto kv_head = test::kv_head_of(heads);
    const Tokens x(random, 390, heads, 20, 13);
    const auto values = test::values_of(x);
    for (const GlobalLocal spec :
         {GlobalLocal{1, 3}, GlobalLocal{1, 64}, GlobalLocal{64, 64}, GlobalLocal{100, 50},
          GlobalLocal{130, 7}, GlobalLocal{20, 200}}) {
      std::vector<std::vector<double>> mean_keys, mean_values;
      for (int64_t b = 0; b < x.n / spec.block; ++b) {
        for (int64_t g = 0; g < x.kv_heads; ++g) {
          std::vector<double> k(20), v(13);
          for (int64_t s = b * spec.block; s < (b + 1) * spec.block; ++s) {
            for (size_t d = 0; d < 20; ++d) k[d] += x.key(s, g)[d] / double(spec.block);
            for (size_t d = 0; d < 13; ++d) v[d] += x.value(s, g)[d] / double(spec.block);
          }
          mean_keys.push_back(k);
          mean_values.push_back(v);
        }
      }
      SoftmaxRows rows(13);
      double q_size = 0;
      for (int64_t t = 0; t < x.n; ++t) {
        // Far is what lies before the block in which the window begins.
        const int64_t window_begin = std::max<int64_t>(0, t - spec.window + 1);
        const int64_t far = window_begin / spec.block;
        for (int64_t h = 0; h < x.q_heads; ++h) {
          const auto g = kv_head[static_cast<size_t>(h)];
          std::vector<Term> terms;
          for (int64_t b = 0; b < far; ++b) {
            const auto i = static_cast<size_t>(b * x.kv_heads + g);
            const auto p = product(x.query(t, h), mean_keys[i].data(), 20, x.scale());
            const double weight = std::log(static_cast<double>(spec.block));
            terms.push_back({p.score + weight, p.size, weight, mean_values[i].data()});
          }
          for (int64_t s = far * spec.block; s <= t; ++s) {
            const auto p = product(x.query(t, h), x.key(s, g), 20, x.scale());
            terms.push_back(
                {p.score, p.size, 0, values[static_cast<size_t>(s * x.kv_heads + g)].data()});
          }
          rows.add(terms);
          double size = 0;
          for (int64_t d = 0; d < 20; ++d) size += std::abs(x.query(t, h)[d]);
          q_size = std::max(q_size, x.scale() * size);
        }
      }
      // Means of f32 are off by an epsilon a term, of at most the largest element.
      const auto most = [](const std::vector<float>& all) {
        double top = 0;
        for (const float value : all) top = std::max<double>(top, std::abs(value));
        return top;
      };
      const double share = static_cast<double>(spec.block + 1) * 0x1p-24;
      EXPECT_TRUE(test::close(run(context, spec, x, heads), x, rows.result(),
                              {share * q_size * most(x.k), share * most(x.v)}))
          << attention_text(spec);
    }
  }
}

}  // namespace
}  // namespace gqa
