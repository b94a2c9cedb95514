#include "gqa/kv_cache.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/half.h"
#include "gqa/error.h"
#include "support/expect_error.h"
#include "support/small_kv_cache.h"

namespace gqa {
namespace {

using test::expect_error;
using test::SmallKvCache;

float rounded(DType t, float x) {
  uint32_t memory = 0;
  store_element(&memory, t, 0, x);
  return load_element(&memory, t, 0);
}

std::vector<float> random_floats(std::mt19937_64& random, int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& x : values) x = normal(random);
  return values;
}

TEST(KvCache, HoldsEveryTypeRoundedFromAnyStridesWhateverTheThreads) {
  std::mt19937_64 random(4);
  const KvShape base{.kv_heads = {3, 1}, .head_dim = 34, .v_head_dim = 21};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    KvShape shape = base;
    shape.dtype = kv_dtype(dtype);
    const int64_t v_dim = dtype == DType::bf16 ? 22 : 21;  // in whole words
    EXPECT_EQ(shape.bytes_per_token(), (3 + 1) * (34 + v_dim) * dtype_bytes(dtype));
    EXPECT_EQ(shape.page_bytes(0), 64 * 3 * (34 + v_dim) * dtype_bytes(dtype));
    for (const int threads : {1, 3}) {
      Context context({.threads = threads});
      KvCache cache(shape);
      const int64_t sequence = cache.create();
      for (int64_t layer = 0; layer < 2; ++layer) {
        const int64_t heads = shape.kv_heads[static_cast<size_t>(layer)];
        std::vector<float> expected_k, expected_v;
        for (const int64_t n : {1, 60, 5, 400, 0, 62, 1000}) {  // enough to be shared out
          // Keys arrive as [heads][n][dim], values with gaps in the last axis.
          const auto k = random_floats(random, heads * n * 34);
          const auto v = random_floats(random, n * heads * 42);
          cache.append(context, sequence, layer,
                       {k.data(), DType::f32, {n, heads, 34}, {34, n * 34, 1}},
                       {v.data(), DType::f32, {n, heads, 21}, {heads * 42, 42, 2}});
          for (int64_t i = 0; i < n * heads; ++i) {
            const int64_t from = (i % heads * n + i / heads) * 34;
            for (int64_t d = 0; d < 34; ++d) {
              expected_k.push_back(rounded(dtype, k[static_cast<size_t>(from + d)]));
            }
            for (int64_t d = 0; d < 21; ++d) {
              expected_v.push_back(rounded(dtype, v[static_cast<size_t>(i * 42 + d * 2)]));
            }
          }
        }
        ASSERT_EQ(cache.len(sequence, layer), 1528);
        std::vector<float> k(expected_k.size()), v(expected_v.size());
        cache.read(sequence, layer, 0, 1528, k.data(), v.data());
        ASSERT_EQ(k, expected_k);
        ASSERT_EQ(v, expected_v);
      }
      EXPECT_EQ(cache.used_bytes(sequence), 1528 * shape.bytes_per_token());
      EXPECT_EQ(cache.usage().bytes, 24 * 64 * shape.bytes_per_token());
    }
  }
}

TEST(KvCache, AForkCopiesOnePageOfEachLayerAndOnlyWhenItWrites) {
  SmallKvCache s({2, 1});
  const int64_t first = s.filled(200, 1.0f);  // 4 pages a layer, the last one with 8 tokens
  const int64_t second = s.cache.fork(first, 200);
  EXPECT_EQ(s.cache.usage().pages, 8);
  EXPECT_EQ(s.cache.usage().shared_pages, 8);
  s.append(second, 1, 2.0f);
  EXPECT_EQ(s.cache.usage().pages, 10);
  EXPECT_EQ(s.cache.usage().shared_pages, 6);
  s.append(second, 50, 2.0f);
  s.append(first, 1, 3.0f);  // nobody else has that page any more
  EXPECT_EQ(s.cache.usage().pages, 10);
  EXPECT_EQ(s.at(first, 199), 1.0f);
  EXPECT_EQ(s.at(first, 200), 3.0f);
  EXPECT_EQ(s.at(second, 199), 1.0f);
  EXPECT_EQ(s.at(second, 200), 2.0f);

  // A shorter fork; the one that is left alone with a page writes into it.
  const int64_t third = s.cache.fork(first, 70);
  s.cache.free(first);
  s.cache.free(second);
  EXPECT_EQ(s.cache.usage().pages, 4);
  EXPECT_EQ(s.cache.usage().free_pages, 6);
  s.append(third, 1, 4.0f);
  EXPECT_EQ(s.cache.usage().pages, 4);
  EXPECT_EQ(s.at(third, 69), 1.0f);
  EXPECT_EQ(s.at(third, 70), 4.0f);
  s.cache.free(third);
  EXPECT_EQ(s.cache.usage(), (KvUsage{.free_pages = 10, .free_bytes = 5 * 64 * 15 * 4}));
}

TEST(KvCache, SixteenForksStoreTheirPrefixOnce) {
  for (const int64_t prefix : {4096, 4100}) {
    SmallKvCache s({2, 1});
    const int64_t parent = s.filled(prefix, 1.0f);
    const int64_t pages = 2 * ((prefix + 63) / 64);
    EXPECT_EQ(s.cache.usage().pages, pages);
    std::vector<int64_t> forks;
    for (int i = 0; i < 16; ++i) forks.push_back(s.cache.fork(parent, prefix));
    EXPECT_EQ(s.cache.usage().pages, pages);
    EXPECT_EQ(s.cache.usage().shared_pages, pages);
    // Whole pages are never copied; a partly filled one is, once for each writer.
    for (const int64_t fork : forks) s.append(fork, 1, 2.0f);
    EXPECT_EQ(s.cache.usage().pages, pages + 2 * 16);
    EXPECT_EQ(s.cache.usage().shared_pages, prefix == 4096 ? pages : pages - 2);
    for (const int64_t fork : forks) {
      EXPECT_EQ(s.cache.used_bytes(fork), (prefix + 1) * s.cache.shape().bytes_per_token());
    }
    s.cache.free(parent);
    for (const int64_t fork : forks) s.cache.free(fork);
    EXPECT_EQ(s.cache.usage().pages, 0);
  }
}

TEST(KvCache, ReleaseGivesUpWholePagesAndRefusesToReadThemOrEndInThem) {
  SmallKvCache s({2, 1});
  const int64_t sequence = s.filled(300, 1.0f);
  const int64_t bytes = s.cache.used_bytes(sequence);
  s.cache.release(sequence, 0, 1, 127);  // no page lies wholly within
  s.cache.release(sequence, 0, 256, 300);
  EXPECT_EQ(s.cache.usage().pages, 10);
  s.cache.release(sequence, 0, 64, 192);
  s.cache.release(sequence, 0, 0, 191);  // some of them again
  EXPECT_EQ(s.cache.usage().pages, 7);
  EXPECT_EQ(s.cache.used_bytes(sequence), bytes - 3 * s.cache.shape().page_bytes(0));
  EXPECT_EQ(s.cache.len(sequence), 300);
  EXPECT_EQ(s.at(sequence, 192), 1.0f);
  std::vector<float> out(300 * 6);
  const auto read = [&](int64_t begin, int64_t n) {
    s.cache.read(sequence, 0, begin, n, out.data(), out.data());
  };
  expect_error(ErrorKind::usage, {"token 190 was released"}, [&] { read(190, 10); });
  expect_error(ErrorKind::usage, {"no 2 tokens from 299"}, [&] { read(299, 2); });
  s.cache.read(sequence, 1, 0, 300, out.data(), out.data());
  for (const int64_t len : {192, 130, 1}) {
    const std::string token = "token " + std::to_string(len - 1) + " was released";
    expect_error(ErrorKind::usage, {"truncate", token}, [&] { s.cache.truncate(sequence, len); });
    expect_error(ErrorKind::usage, {"fork", token}, [&] { s.cache.fork(sequence, len); });
  }
  const int64_t fork = s.cache.fork(sequence, 200);
  EXPECT_EQ(s.cache.used_bytes(fork),
            200 * s.cache.shape().bytes_per_token() - 3 * s.cache.shape().page_bytes(0));
  s.cache.truncate(sequence, 193);
  s.cache.truncate(sequence, 0);
  EXPECT_EQ(s.cache.used_bytes(sequence), 0);
  s.append(sequence, 65, 2.0f);
  EXPECT_EQ(s.cache.used_bytes(sequence), 65 * s.cache.shape().bytes_per_token());
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{-1, 5}, {5, 4}, {0, 66}}) {
    expect_error(ErrorKind::usage, {"of 65"}, [&] { s.cache.release(sequence, 0, begin, end); });
  }
}

TEST(KvCache, RefusesIdsThatAreNotAliveAndGivesThemOutAgain) {
  SmallKvCache s({1});
  const int64_t kept = s.filled(3, 1.0f);
  const int64_t freed = s.filled(70, 2.0f);
  s.cache.free(freed);
  const AnyView<3> none(nullptr, DType::f32, {0, 1, 2});
  float x[3];
  const KvCache::Growth growth{freed, 1};
  for (const int64_t id : {freed, freed + 1, int64_t{-1}}) {
    const auto refused = [&](auto&& call) {
      expect_error(ErrorKind::usage, {"no sequence " + std::to_string(id)}, call);
    };
    refused([&] { s.cache.fork(id, 0); });
    refused([&] { s.cache.free(id); });
    refused([&] { s.cache.len(id); });
    refused([&] { s.cache.len(id, 0); });
    refused([&] { s.cache.append(s.context, id, 0, none, none); });
    refused([&] { s.cache.truncate(id, 0); });
    refused([&] { s.cache.release(id, 0, 0, 0); });
    refused([&] { s.cache.view(id, 0); });
    refused([&] { s.cache.read(id, 0, 0, 1, x, x); });
    refused([&] { s.cache.used_bytes(id); });
  }
  expect_error(ErrorKind::usage, {"no sequence"}, [&] { s.cache.reserve({&growth, 1}); });
  for (const int64_t layer : {-1, 1}) {
    const auto refused = [](auto&& call) { expect_error(ErrorKind::usage, {"no layer"}, call); };
    refused([&] { s.cache.len(kept, layer); });
    refused([&] { s.cache.append(s.context, kept, layer, none, none); });
    refused([&] { s.cache.release(kept, layer, 0, 0); });
    refused([&] { s.cache.view(kept, layer); });
    refused([&] { s.cache.read(kept, layer, 0, 1, x, x); });
    refused([&] { s.cache.shape().page_bytes(layer); });
  }
  EXPECT_EQ(s.cache.create(), freed);
  EXPECT_EQ(s.cache.len(freed), 0);
  EXPECT_EQ(s.at(kept, 2), 1.0f);
}

TEST(KvCache, RefusesWhatDoesNotFitAndStaysAsItWas) {
  const auto refused = [](KvShape shape, int64_t max_pages, ErrorKind kind) {
    expect_error(kind, {"KV cache"}, [&] { KvCache(shape, max_pages); });
  };
  refused({.kv_heads = {}, .head_dim = 8, .v_head_dim = 8}, 0, ErrorKind::usage);
  refused({.kv_heads = {0}, .head_dim = 8, .v_head_dim = 8}, 0, ErrorKind::usage);
  refused({.kv_heads = {1}, .head_dim = 0, .v_head_dim = 8}, 0, ErrorKind::usage);
  refused({.kv_heads = {1}, .head_dim = 8, .v_head_dim = 8}, -1, ErrorKind::usage);
  refused({.kv_heads = {INT64_MAX / 8}, .head_dim = 8, .v_head_dim = 8}, 0, ErrorKind::resources);
  SmallKvCache s({2});
  const int64_t sequence = s.filled(3, 1.0f);
  const std::vector<float> x(100);
  const auto view = [&](int64_t n, int64_t heads, int64_t dim) {
    return AnyView<3>(x.data(), DType::f32, {n, heads, dim});
  };
  const auto bad = [&](const AnyView<3>& k, const AnyView<3>& v) {
    expect_error(ErrorKind::usage, {"has shape [", "expected ["},
                 [&] { s.cache.append(s.context, sequence, 0, k, v); });
  };
  bad(view(3, 2, 2), view(2, 2, 3));
  bad(view(3, 2, 2), view(3, 1, 3));
  bad(view(3, 2, 3), view(3, 2, 3));
  bad(view(-1, 2, 2), view(-1, 2, 3));
  expect_error(ErrorKind::usage, {"3 tokens"}, [&] { s.cache.truncate(sequence, 4); });
  expect_error(ErrorKind::usage, {"3 tokens"}, [&] { s.cache.truncate(sequence, -1); });
  expect_error(ErrorKind::usage, {"3 tokens"}, [&] { s.cache.fork(sequence, 4); });
  EXPECT_EQ(s.cache.len(sequence), 3);
  EXPECT_EQ(s.cache.usage().pages, 1);
}

}  // namespace
}  // namespace gqa
