// Caches of int8 and int4.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gqa/kv_cache.h"
#include "support/quantised.h"

namespace gqa {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

/// Vectors of sizes that differ by many powers of two, so that every scale is another.
std::vector<float> random_vectors(std::mt19937_64& random, int64_t n, int64_t dim) {
  std::normal_distribution<float> normal;
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) {
    const float size = std::exp2(static_cast<float>(random() % 40) - 20.0f);
    for (int64_t d = 0; d < dim; ++d) values.push_back(size * normal(random));
  }
  return values;
}

std::span<float> vector_of(std::vector<float>& x, int64_t i, int64_t dim) {
  return std::span(x).subspan(static_cast<size_t>(i * dim), static_cast<size_t>(dim));
}

void quantise_all(KvDType t, std::vector<float>& x, int64_t dim) {
  for (int64_t i = 0; i < std::ssize(x) / dim; ++i) test::quantise(t, vector_of(x, i, dim));
}

class Quantised : public ::testing::TestWithParam<KvDType> {};
INSTANTIATE_TEST_SUITE_P(All, Quantised, ::testing::Values(KvDType::int8, KvDType::int4),
                         [](const auto& type) { return std::string(kv_dtype_name(type.param)); });

/// A sequence of one layer with two KV heads, and what it should hold.
struct Filled {
  KvShape shape;
  Context context;
  KvCache cache;
  int64_t sequence;
  std::vector<float> k, v;  ///< as appended, dense

  Filled(KvDType t, int64_t head_dim, int64_t v_head_dim, const ContextOptions& options = {1, {}})
      : shape{{2}, head_dim, v_head_dim, t},
        context(options),
        cache(shape),
        sequence(cache.create()) {}

  void append(const std::vector<float>& new_k, const std::vector<float>& new_v) {
    const int64_t n = std::ssize(new_k) / (2 * shape.head_dim);
    cache.append(context, sequence, 0, {new_k.data(), DType::f32, {n, 2, shape.head_dim}},
                 {new_v.data(), DType::f32, {n, 2, shape.v_head_dim}});
    k.insert(k.end(), new_k.begin(), new_k.end());
    v.insert(v.end(), new_v.begin(), new_v.end());
  }
  void append(std::mt19937_64& random, int64_t n) {
    append(random_vectors(random, 2 * n, shape.head_dim),
           random_vectors(random, 2 * n, shape.v_head_dim));
  }
  void truncate(int64_t len) {
    cache.truncate(sequence, len);
    k.resize(static_cast<size_t>(len * 2 * shape.head_dim));
    v.resize(static_cast<size_t>(len * 2 * shape.v_head_dim));
  }
  /// Goes on as a fork; returns the sequence that it leaves.
  int64_t fork(int64_t len) {
    const int64_t old = std::exchange(sequence, cache.fork(sequence, len));
    truncate(len);
    return old;
  }
  std::vector<float> read_keys() const { return read().first; }
  std::pair<std::vector<float>, std::vector<float>> read() const {
    std::vector<float> got_k(k.size()), got_v(v.size());
    cache.read(sequence, 0, 0, cache.len(sequence), got_k.data(), got_v.data());
    return {got_k, got_v};
  }
  void expect_content() const {
    auto expected_k = k, expected_v = v;
    quantise_all(shape.dtype, expected_k, shape.head_dim);
    quantise_all(shape.dtype, expected_v, shape.v_head_dim);
    const auto [got_k, got_v] = read();
    ASSERT_EQ(got_k, expected_k);
    ASSERT_EQ(got_v, expected_v);
  }
};

TEST(KvDTypeNames, AreReadBackAndElementTypesKeepTheirs) {
  for (const KvDType t :
       {KvDType::f32, KvDType::f16, KvDType::bf16, KvDType::int8, KvDType::int4}) {
    EXPECT_EQ(parse_kv_dtype(kv_dtype_name(t)), t);
    EXPECT_EQ(is_quantised(t), !parse_dtype(kv_dtype_name(t)));
    if (!is_quantised(t)) {
      EXPECT_EQ(kv_dtype(element_dtype(t)), t);
      EXPECT_EQ(kv_dtype_name(t), dtype_name(element_dtype(t)));
    }
  }
  EXPECT_EQ(parse_kv_dtype("bfloat16"), KvDType::bf16);
  EXPECT_EQ(parse_kv_dtype("int"), std::nullopt);
}

TEST_P(Quantised, EveryHeadSizeOnEveryInstructionSetReadsAsTheFormulaSays) {
  std::mt19937_64 random(1);
  std::vector<int64_t> sizes{80, 128};
  for (int64_t d = 1; d <= 40; ++d) sizes.push_back(d);
  for (const std::string& isa : available_isas()) {
    for (const int64_t dim : sizes) {
      Filled x(GetParam(), dim, 129 - dim, {1, isa});
      for (const int64_t n : {1, 40, 60, 30}) x.append(random, n);
      x.expect_content();
      if (HasFatalFailure()) FAIL() << isa << ", head size " << dim;
    }
  }
}

TEST_P(Quantised, IsTheSameWhateverStridesTypesAndThreads) {
  std::mt19937_64 random(2);
  // Keys arrive as [heads][n][dim]; values in bf16 and backwards.
  constexpr int64_t n = 900, dim = 34, v_dim = 21;
  const auto k = random_vectors(random, 2 * n, dim);
  std::vector<uint16_t> v_bits;
  std::vector<float> v;
  for (int64_t i = 0; i < 2 * n * v_dim; ++i) {
    v_bits.push_back(static_cast<uint16_t>(0x3f00 + random() % 0x100));
    v.push_back(std::bit_cast<float>(static_cast<uint32_t>(v_bits.back()) << 16));
  }
  auto expected_k = k, expected_v = v;
  quantise_all(GetParam(), expected_k, dim);
  quantise_all(GetParam(), expected_v, v_dim);
  for (const int threads : {1, 3}) {
    Context context({.threads = threads});
    KvCache cache({{2}, dim, v_dim, GetParam()});
    const int64_t sequence = cache.create();
    cache.append(context, sequence, 0, {k.data(), DType::f32, {n, 2, dim}, {dim, n * dim, 1}},
                 {v_bits.data() + v_dim - 1, DType::bf16, {n, 2, v_dim}, {2 * v_dim, v_dim, -1}});
    std::vector<float> got_k(k.size()), got_v(v.size());
    cache.read(sequence, 0, 0, n, got_k.data(), got_v.data());
    for (int64_t i = 0; i < 2 * n; ++i) {
      for (int64_t d = 0; d < dim; ++d) {
        const int64_t from = (i % 2 * n + i / 2) * dim + d;
        ASSERT_EQ(got_k[static_cast<size_t>(i * dim + d)], expected_k[static_cast<size_t>(from)]);
      }
      for (int64_t d = 0; d < v_dim; ++d) {
        ASSERT_EQ(got_v[static_cast<size_t>(i * v_dim + d)],
                  expected_v[static_cast<size_t>(i * v_dim + v_dim - 1 - d)]);
      }
    }
  }
}

TEST_P(Quantised, IsWithinHalfAStep) {
  std::mt19937_64 random(3);
  Filled x(GetParam(), 128, 1);
  x.append(random, 500);
  const auto got = x.read_keys();
  for (int64_t i = 0; i < 1000; ++i) {
    const auto vector = vector_of(x.k, i, 128);
    const double scale = test::scale_of(GetParam(), vector);
    // The quotient, at most 127, rounds by 2^-24 of itself, which may turn a tie; so does the
    // product.
    const double allowed = scale * (0.5 + 2 * test::largest_integer(GetParam()) * 0x1p-24);
    for (int64_t d = 0; d < 128; ++d) {
      const auto at = static_cast<size_t>(i * 128 + d);
      ASSERT_LE(std::abs(double{x.k[at]} - double{got[at]}), allowed) << x.k[at];
    }
  }
}

TEST_P(Quantised, TiesGoToTheEvenInteger) {
  const float most = test::largest_integer(GetParam());
  Filled x(GetParam(), 9, 1);
  std::vector<float> k(18, 0.0f);
  const float in[] = {most, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 3.5f, -most};
  const std::vector<float> expected{most, 0, 2, 2, 0, -2, -2, 4, -most};
  std::copy_n(in, 9, k.begin());
  x.append(k, {1.0f, 1.0f});
  const auto got = x.read_keys();
  EXPECT_EQ(std::vector<float>(got.begin(), got.begin() + 9), expected);
}

TEST_P(Quantised, WhatIsNotFiniteMakesItsOwnVectorNanAndNoOther) {
  const float least = std::numeric_limits<float>::min() * test::largest_integer(GetParam());
  const float most = std::numeric_limits<float>::max();
  for (const float odd : {nan, inf, -inf, 0.0f, 0.9f * least, 1.1f * least, most, -most}) {
    std::mt19937_64 random(4);
    Filled x(GetParam(), 19, 19);
    x.append(random, 100);
    auto k = random_vectors(random, 2, 19), v = k;
    std::fill_n(k.begin(), 19, 0.0f);  // key of head 0, value of head 1
    std::fill_n(v.begin() + 19, 19, 0.0f);
    k[17] = v[19 + 3] = odd;
    x.append(k, v);
    x.append(random, 40);  // of which some share their bytes with the odd one
    const auto [got_k, got_v] = x.read();
    const auto expect_odd = [&](const std::vector<float>& got, size_t begin, size_t at) {
      for (size_t d = begin; d < begin + 19; ++d) {
        if (!std::isfinite(odd)) {
          ASSERT_TRUE(std::isnan(got[d])) << odd;
        } else if (d != at || std::abs(odd) < least) {
          ASSERT_EQ(got[d], 0.0f) << odd;
        } else {
          ASSERT_NEAR(got[d] / odd, 1.0f, 0x1p-22f) << odd;
        }
      }
    };
    expect_odd(got_k, size_t{200} * 19, size_t{200} * 19 + 17);
    expect_odd(got_v, size_t{201} * 19, size_t{201} * 19 + 3);
    quantise_all(GetParam(), x.k, 19);
    quantise_all(GetParam(), x.v, 19);
    for (size_t i = 0; i < x.k.size(); ++i) {
      ASSERT_TRUE(i / 19 == 200 || got_k[i] == x.k[i]) << i;
      ASSERT_TRUE(i / 19 == 201 || got_v[i] == x.v[i]) << i;
    }
  }
}

TEST_P(Quantised, ScalesStayWithTheirTokensWhenSequencesPart) {
  std::mt19937_64 random(5);
  Filled x(GetParam(), 7, 5);
  x.append(random, 150);
  const auto old_k = x.k, old_v = x.v;
  const int64_t old = x.fork(141);  // within a page, behind its half
  x.append(random, 3);              // which is copied now
  x.expect_content();
  x.truncate(129);
  x.append(random, 70);
  x.expect_content();
  x.sequence = old;
  x.k = old_k;
  x.v = old_v;
  x.expect_content();
}

TEST_P(Quantised, CountsEveryByte) {
  const bool int8 = GetParam() == KvDType::int8;
  // A vector in whole words of 4 bytes, and its scale.
  const int64_t key = (int8 ? 8 : 4) + 4, value = (int8 ? 8 : 4) + 4;
  const KvShape shape{.kv_heads = {3, 1}, .head_dim = 5, .v_head_dim = 8, .dtype = GetParam()};
  EXPECT_EQ(shape.bytes_per_token(), 4 * (key + value));
  EXPECT_EQ(shape.page_bytes(0), 64 * 3 * (key + value));
  EXPECT_EQ(shape.page_bytes(1), 64 * (key + value));
  Context context({.threads = 1});
  KvCache cache(shape);
  const int64_t sequence = cache.create();
  const std::vector<float> x(size_t{3} * 70 * 8, 1.0f);
  for (int64_t layer = 0; layer < 2; ++layer) {
    const int64_t heads = shape.kv_heads[static_cast<size_t>(layer)];
    cache.append(context, sequence, layer, {x.data(), DType::f32, {70, heads, 5}},
                 {x.data(), DType::f32, {70, heads, 8}});
  }
  EXPECT_EQ(cache.used_bytes(sequence), 70 * shape.bytes_per_token());
  EXPECT_EQ(cache.usage().bytes, 2 * 64 * shape.bytes_per_token());
  cache.release(sequence, 0, 0, 64);
  EXPECT_EQ(cache.used_bytes(sequence), 70 * shape.bytes_per_token() - shape.page_bytes(0));
}

}  // namespace
}  // namespace gqa
