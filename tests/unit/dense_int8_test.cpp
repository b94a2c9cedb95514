// Dense products with int8 weights: what quantising makes of them, and the bits of that as f32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "core/half.h"
#include "model/int8_matrix.h"

namespace gqa {
namespace {

constexpr int64_t block = 64;  // what include/gqa/dtype.h says

/// A matrix of a type, quantised, and what it should have become, by the formula.
struct Case {
  std::vector<std::byte> stored;
  Linear layer;
  Int8Matrix memory;
  std::vector<float> expected;

  Case(const kernels::Table& table, DType dtype, int64_t in, int64_t out) {
    std::mt19937_64 random(static_cast<uint64_t>(in * 31 + out));
    std::normal_distribution<float> normal;
    stored.resize(static_cast<size_t>(in * out * dtype_bytes(dtype)));
    for (int64_t i = 0; i < in * out; ++i) {
      // Blocks of very different sizes, among them one of zeros.
      const float size = std::ldexp(static_cast<float>(i / block % 7), static_cast<int>(i % 5));
      store_element(stored.data(), dtype, i, size * normal(random));
    }
    layer = {stored.data(), dtype, in, out, {}};
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t begin = 0; begin < in; begin += block) expect_block(o, begin);
    }
    memory = quantise(table, layer);
  }

 private:
  void expect_block(int64_t o, int64_t begin) {
    const int64_t end = std::min(begin + block, layer.in);
    const auto at = [&](int64_t i) {
      return load_element(stored.data(), layer.dtype, o * layer.in + i);
    };
    float most = 0;
    for (int64_t i = begin; i < end; ++i) most = std::max(most, std::abs(at(i)));
    const float scale = most / 127.0f;
    for (int64_t i = begin; i < end; ++i) {
      expected.push_back(scale == 0 ? 0.0f : scale * std::nearbyint(at(i) / scale));
    }
  }
};

class DenseInt8 : public ::testing::TestWithParam<const kernels::Table*> {
 protected:
  const kernels::Table& table() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(All, DenseInt8,
                         ::testing::ValuesIn(kernels::tables().begin(), kernels::tables().end()),
                         [](const auto& isa) { return std::string(isa.param->isa); });

constexpr DType all_dtypes[] = {DType::f32, DType::f16, DType::bf16};

TEST_P(DenseInt8, WeightsAreAScaleTimesAnIntegerABlock) {
  for (const DType t : all_dtypes) {
    for (const int64_t in : {1, 63, 64, 65, 200}) {
      const Case c(table(), t, in, 3);
      const auto* q = static_cast<const int8_t*>(c.layer.weight);
      for (int64_t i = 0; i < in * 3; ++i) {
        const int64_t blocks = (in + block - 1) / block;
        const float scale = c.layer.scales[i / in * blocks + i % in / block];
        ASSERT_EQ(scale * static_cast<float>(q[i]), c.expected[static_cast<size_t>(i)]) << i;
      }
    }
  }
}

TEST_P(DenseInt8, HasTheBitsOfTheSameWeightsInF32) {
  constexpr float untouched = -77.0f;
  std::vector<float> scratch(static_cast<size_t>(kernels::dense_scratch), NAN);
  for (const int64_t in : {1, 17, 63, 64, 65, 127, 344, 1041, 2110, 5150}) {
    for (const int64_t out : {1, 5, 21}) {
      const Case c(table(), DType::f32, in, out);
      for (const int64_t rows : {1, 2, 3, 4, 6, 7, 16, 17, 70}) {
        std::mt19937_64 random(static_cast<uint64_t>(rows));
        std::normal_distribution<float> normal;
        std::vector<float> x(static_cast<size_t>(rows * in));
        for (float& v : x) v = normal(random);
        const int64_t end = out > 1 ? out - 1 : out;
        std::vector<float> expected(static_cast<size_t>(rows * out), untouched);
        std::vector<float> got = expected;
        table().dense(DType::f32, c.expected.data(), in, out - end, end, x.data(), in, rows,
                      expected.data(), out, scratch.data());
        table().dense_int8(static_cast<const int8_t*>(c.layer.weight), c.layer.scales, in,
                           out - end, end, x.data(), in, rows, got.data(), out, scratch.data());
        ASSERT_EQ(got, expected) << rows << " rows, " << in << " to " << out;
      }
    }
  }
}

TEST(LinearInt8, NeitherRowsNorThreadsChangeABitAndTheMemoryIsThatOfBoth) {
  const Case c(*kernels::tables().front(), DType::bf16, 1100, 300);
  const auto [weights, scales] = c.layer.memory();
  EXPECT_EQ(std::ssize(weights), 1100 * 300);
  EXPECT_EQ(std::ssize(scales), 18 * 300 * 4);
  const int64_t rows = 40;
  std::vector<float> x(rows * 1100);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) - 8;
  Context::Impl one(1, kernels::tables().front());
  std::vector<float> whole(rows * 300);
  linear(one, c.layer, x.data(), rows, whole.data());
  for (int threads = 1; threads <= 4; ++threads) {
    Context::Impl context(threads, kernels::tables().front());
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<float> alone(300);
      linear(context, c.layer, x.data() + r * 1100, 1, alone.data());
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), whole.begin() + r * 300)) << r;
    }
  }
}

}  // namespace
}  // namespace gqa
