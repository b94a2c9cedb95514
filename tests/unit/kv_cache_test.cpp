#include "gqa/kv_cache.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/half.h"
#include "gqa/error.h"

namespace gqa {
namespace {

/// The obvious cache: rows in vectors.
struct Simple {
  std::vector<std::vector<float>> k, v;
};

float rounded(DType t, float x) {
  uint32_t memory = 0;
  store_element(&memory, t, 0, x);
  return load_element(&memory, t, 0);
}

TEST(KvCache, AppendsTruncatesAndAccountsLikeTheObviousOne) {
  Context context({.threads = 1});
  std::mt19937_64 random(4);
  std::normal_distribution<float> normal;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const KvShape shape{.kv_heads = {3, 1}, .head_dim = 10, .v_head_dim = 7, .dtype = dtype};
    EXPECT_EQ(shape.bytes_per_token(), (3 + 1) * (10 + 7) * dtype_bytes(dtype));
    KvCache cache(shape);
    const int64_t sequence = cache.create();
    std::vector<Simple> simple(2);
    for (int step = 0; step < 60; ++step) {
      if (random() % 5 == 0) {
        const int64_t len =
            static_cast<int64_t>(random() % static_cast<uint64_t>(cache.len(sequence) + 1));
        cache.truncate(sequence, len);
        for (Simple& s : simple) {
          s.k.resize(static_cast<size_t>(len));
          s.v.resize(static_cast<size_t>(len));
        }
      }
      const int64_t n = static_cast<int64_t>(random() % 90);
      for (int64_t layer = 0; layer < 2; ++layer) {
        const int64_t heads = shape.kv_heads[static_cast<size_t>(layer)];
        // Keys arrive as [heads][n][dim], values dense.
        std::vector<float> k(static_cast<size_t>(n * heads * 10)),
            v(static_cast<size_t>(n * heads * 7));
        for (float& x : k) x = normal(random);
        for (float& x : v) x = normal(random);
        cache.append(context, sequence, layer,
                     {k.data(), DType::f32, {n, heads, 10}, {10, n * 10, 1}},
                     {v.data(), DType::f32, {n, heads, 7}});
        Simple& s = simple[static_cast<size_t>(layer)];
        for (int64_t t = 0; t < n; ++t) {
          s.k.emplace_back();
          s.v.emplace_back();
          for (int64_t h = 0; h < heads; ++h) {
            for (int64_t d = 0; d < 10; ++d)
              s.k.back().push_back(rounded(dtype, k[static_cast<size_t>((h * n + t) * 10 + d)]));
            for (int64_t d = 0; d < 7; ++d)
              s.v.back().push_back(rounded(dtype, v[static_cast<size_t>((t * heads + h) * 7 + d)]));
          }
        }
      }
      const int64_t len = static_cast<int64_t>(simple[0].k.size());
      ASSERT_EQ(cache.len(sequence), len);
      ASSERT_EQ(cache.used_bytes(sequence), len * shape.bytes_per_token());
      ASSERT_EQ(cache.usage().bytes, (len + 63) / 64 * 64 * shape.bytes_per_token());
      for (int64_t layer = 0; layer < 2; ++layer) {
        const auto heads = static_cast<size_t>(shape.kv_heads[static_cast<size_t>(layer)]);
        std::vector<float> k(static_cast<size_t>(len) * heads * 10),
            v(static_cast<size_t>(len) * heads * 7);
        cache.read(sequence, layer, 0, len, k.data(), v.data());
        for (size_t t = 0; t < static_cast<size_t>(len); ++t) {
          const Simple& s = simple[static_cast<size_t>(layer)];
          ASSERT_TRUE(std::equal(s.k[t].begin(), s.k[t].end(),
                                 k.begin() + static_cast<int64_t>(t * heads * 10)));
          ASSERT_TRUE(std::equal(s.v[t].begin(), s.v[t].end(),
                                 v.begin() + static_cast<int64_t>(t * heads * 7)));
        }
      }
    }
  }
}

TEST(KvCache, RefusesWhatDoesNotFitAndStaysAsItWas) {
  Context context({.threads = 1});
  EXPECT_THROW(KvCache({.kv_heads = {}, .head_dim = 8, .v_head_dim = 8}), Error);
  EXPECT_THROW(KvCache({.kv_heads = {0}, .head_dim = 8, .v_head_dim = 8}), Error);
  EXPECT_THROW(KvCache({.kv_heads = {1}, .head_dim = 0, .v_head_dim = 8}), Error);
  KvCache cache({.kv_heads = {2}, .head_dim = 4, .v_head_dim = 4});
  const int64_t sequence = cache.create();
  const std::vector<float> x(100);
  const AnyView<3> good(x.data(), DType::f32, {3, 2, 4});
  cache.append(context, sequence, 0, good, good);
  EXPECT_THROW(cache.append(context, sequence, 0, good, {x.data(), DType::f32, {2, 2, 4}}), Error);
  EXPECT_THROW(cache.append(context, sequence, 0, good, {x.data(), DType::f32, {3, 1, 4}}), Error);
  EXPECT_THROW(cache.append(context, sequence, 0, {x.data(), DType::f32, {3, 2, 5}}, good), Error);
  EXPECT_THROW(cache.append(context, sequence, 1, good, good), Error);
  EXPECT_THROW(cache.truncate(sequence, 4), Error);
  EXPECT_THROW(cache.truncate(sequence, -1), Error);
  EXPECT_EQ(cache.len(sequence), 3);
}

}  // namespace
}  // namespace gqa
