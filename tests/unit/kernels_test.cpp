#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/checked.h"
#include "core/half.h"
#include "core/kv_words.h"
#include "gqa/context.h"
#include "kernels/kernels.h"

namespace gqa::kernels {
namespace {

class Isa : public ::testing::TestWithParam<const Table*> {};
INSTANTIATE_TEST_SUITE_P(All, Isa, ::testing::ValuesIn(tables().begin(), tables().end()),
                         [](const auto& isa) { return std::string(isa.param->isa); });

TEST(Tables, BestFirstAndWhatEveryMachineHasLast) {
  ASSERT_FALSE(tables().empty());
  const auto isas = available_isas();
  EXPECT_EQ(isas.size(), tables().size());
#if defined(__aarch64__)
  EXPECT_EQ(isas, std::vector<std::string>{"neon"});
#else
  EXPECT_EQ(tables().back()->isa, "generic");
#endif
#if defined(__x86_64__)
  EXPECT_EQ(bool(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")),
            (std::count(isas.begin(), isas.end(), "avx2") == 1));
#endif
}

TEST_P(Isa, DecodesEverySixteenBitValueExactly) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> out(all.size());
  for (const DType t : {DType::f16, DType::bf16}) {
    GetParam()->decode(t, all.data(), 65536, out.data());
    for (int64_t i = 0; i < 65536; ++i) {
      const float expected = load_element(all.data(), t, i);
      const float got = out[static_cast<size_t>(i)];
      ASSERT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected))) << i;
      ASSERT_EQ(std::signbit(got), std::signbit(expected)) << i;
    }
  }
}

TEST_P(Isa, EncodesAsTheScalarCodeDoes) {
  std::vector<float> in;
  for (uint64_t b = 0; b < 0x100000000u; b += 65521)
    in.push_back(std::bit_cast<float>(static_cast<uint32_t>(b)));
  for (uint32_t h = 0; h < 0x7c00; h += 3) {  // values, and the ties between neighbours
    const float a = f16_to_f32(static_cast<uint16_t>(h));
    in.push_back(a);
    in.push_back((a + f16_to_f32(static_cast<uint16_t>(h + 1))) / 2);
  }
  const auto n = static_cast<int64_t>(in.size());
  std::vector<uint16_t> out(in.size());
  for (const DType t : {DType::f16, DType::bf16}) {
    GetParam()->encode(t, in.data(), n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      uint32_t expected = 0;  // room for any type
      store_element(&expected, t, 0, in[static_cast<size_t>(i)]);
      if (std::isnan(in[static_cast<size_t>(i)])) {
        ASSERT_TRUE(std::isnan(load_element(out.data(), t, i))) << i;
      } else {
        ASSERT_EQ(out[static_cast<size_t>(i)], expected) << in[static_cast<size_t>(i)];
      }
    }
  }
}

TEST_P(Isa, HandlesEveryLengthAndAlignment) {
  std::vector<std::byte> memory(400);
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::byte>(37 * i % 120);
  for (const DType t : {DType::f32, DType::f16, DType::bf16}) {
    for (int64_t shift = 0; shift < 4; ++shift) {
      for (int64_t n = 0; n < 70; ++n) {
        std::vector<float> out(static_cast<size_t>(n) + 1, 77.0f);
        GetParam()->decode(t, memory.data() + shift, n, out.data());
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_EQ(out[static_cast<size_t>(i)], load_element(memory.data() + shift, t, i));
        }
        ASSERT_EQ(out.back(), 77.0f);
      }
    }
  }
}

constexpr KvDType kv_types[] = {KvDType::f32, KvDType::f16, KvDType::bf16, KvDType::int8,
                                KvDType::int4};

TEST_P(Isa, UnpacksWordsAsTheOneElementCodeDoes) {
  constexpr int64_t depth = 60;
  std::vector<std::byte> memory(20000);
  std::mt19937_64 random(2);
  for (std::byte& b : memory) b = static_cast<std::byte>(random());
  for (const KvDType t : kv_types) {
    for (int round = 0; round < 300; ++round) {
      const bool panels = GetParam()->panels && round % 2 == 1;
      const auto columns = static_cast<int64_t>(panels ? 16 * (random() % 5) : random() % 70);
      const WordOrder from =
          panels ? WordOrder::panels(t, depth, columns) : WordOrder::rows(columns);
      const int64_t padded = round_up(columns, row_padding);
      const int64_t stride = padded + static_cast<int64_t>(random() % 17);
      const WordOrder to = GetParam()->panels && round % 4 > 1
                               ? WordOrder::panels(KvDType::f32, depth, padded)
                               : WordOrder::rows(stride);
      const auto begin = static_cast<int32_t>(random() % 30);
      const auto end = begin + static_cast<int32_t>(random() % 30);
      std::vector<float> out(static_cast<size_t>(depth * stride + 1), 77.0f);
      GetParam()->unpack(t, memory.data(), from, {begin, end}, columns, to, out.data());
      for (int64_t k = begin; k < end; ++k) {
        for (int64_t c = 0; c < padded; ++c) {
          const float expected = c < columns ? load_packed(t, memory.data(), from, k, c) : 0.0f;
          float& got = out[static_cast<size_t>(to.at(k, c))];
          ASSERT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected)))
              << kv_dtype_name(t) << " " << k << " " << c << " of " << columns;
          got = 77.0f;
        }
      }
      ASSERT_EQ(std::count(out.begin(), out.end(), 77.0f), std::ssize(out)) << "written beside it";
    }
  }
}

TEST(KvWords, HoldNeighboursInDepthSideBySide) {
  std::vector<uint8_t> bytes(512);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7);
  const auto* words = bytes.data();
  const auto five = WordOrder::rows(5);
  // 5 columns: element (9, 3) of int8 is byte 1 of word 2 * 5 + 3; of int4 it is the low nibble of
  // byte 1 of word 1 * 5 + 3, and (13, 3) its high nibble.
  EXPECT_EQ(load_packed(KvDType::int8, words, five, 9, 3), static_cast<int8_t>(bytes[4 * 13 + 1]));
  EXPECT_EQ(load_packed(KvDType::int4, words, five, 9, 3),
            static_cast<int8_t>(bytes[4 * 8 + 1] << 4) >> 4);
  EXPECT_EQ(load_packed(KvDType::int4, words, five, 13, 3),
            static_cast<int8_t>(bytes[4 * 8 + 1]) >> 4);
  EXPECT_EQ(load_packed(KvDType::bf16, words, five, 9, 3),
            load_element(words, DType::bf16, 2 * 23 + 1));
  EXPECT_EQ(load_packed(KvDType::f16, words, five, 9, 3), load_element(words, DType::f16, 48));
  // Panels of 16 columns one behind the other; 9 deep, that is 3 rows of words of int8.
  const auto panels = WordOrder::panels(KvDType::int8, 9, 48);
  EXPECT_EQ(load_packed(KvDType::int8, words, panels, 6, 35),
            static_cast<int8_t>(bytes[4 * (2 * 3 * 16 + 1 * 16 + 3) + 2]));
  // Columns that are no whole panels lie in rows.
  EXPECT_EQ(load_packed(KvDType::int8, words, WordOrder::panels(KvDType::int8, 9, 5), 9, 3),
            static_cast<int8_t>(bytes[4 * 13 + 1]));
  EXPECT_EQ(words_bytes(KvDType::int4, 9, 5), 2 * 5 * 4);
  EXPECT_EQ(words_bytes(KvDType::f16, 9, 5), 9 * 5 * 2);
}

TEST_P(Isa, FindsTheOneValueThatIsNotFinite) {
  for (int64_t n = 1; n < 40; ++n) {
    std::vector<float> x(static_cast<size_t>(n), std::numeric_limits<float>::max());
    EXPECT_TRUE(GetParam()->all_finite(x.data(), n));
    for (int64_t i = 0; i < n; ++i) {
      for (const float bad :
           {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
            std::numeric_limits<float>::quiet_NaN()}) {
        auto y = x;
        y[static_cast<size_t>(i)] = bad;
        EXPECT_FALSE(GetParam()->all_finite(y.data(), n)) << n << " " << i;
      }
    }
  }
}

// The weights of a block are exp(score - max): drive the vector exp() through softmax.
// With u = 2^-24 it is within 4 u, and |x| u / 16 for ln 2 as f32, which is off by u / 31.
TEST_P(Isa, ExponentialIsWithinItsBound) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<float> uniform(-87.0f, 0.0f);
  double worst = 0;
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> scores(key_block);
    for (float& s : scores) s = round % 2 ? uniform(random) : uniform(random) / 100;
    scores[0] = 0;  // the maximum, so that nothing is rounded in subtracting it
    const auto in = scores;
    RowState state{-std::numeric_limits<float>::infinity(), 0};
    const uint64_t all = ~uint64_t{0};
    std::vector<float> acc(row_padding);
    GetParam()->softmax(KvDType::f32, scores.data(), key_block, &all, 1, 1, 1.0f, &state,
                        acc.data(), row_padding, {});
    double sum = 0;
    for (size_t i = 0; i < in.size(); ++i) {
      const double x = in[i];
      const double exact = std::exp(x);
      const double allowed = (4 + std::abs(x) / 16) * 0x1p-24 * exact;
      worst = std::max(worst, std::abs(scores[i] - exact) / allowed);
      sum += scores[i];
    }
    EXPECT_NEAR(state.sum, sum, sum * 64 * 0x1p-24);
    EXPECT_EQ(state.max, 0.0f);
  }
  EXPECT_LT(worst, 1);
}

TEST_P(Isa, SoftmaxGivesExactZerosWhereNothingIsSeenAndFarBelowTheMaximum) {
  std::vector<float> scores(key_block, 1.0f);
  scores[10] = 500.0f;
  scores[12] = -std::numeric_limits<float>::infinity();
  scores[11] = scores[40] = 1e30f;  // not seen
  RowState state{-std::numeric_limits<float>::infinity(), 0};
  const uint64_t visible = 0b1111'1111'0111'1111'1000;  // 3 to 19 but 11
  std::vector<float> acc(row_padding, 2.0f);
  GetParam()->softmax(KvDType::f32, scores.data(), key_block, &visible, 1, 1, 1.0f, &state,
                      acc.data(), row_padding, {});
  EXPECT_EQ(state.max, 500.0f);
  EXPECT_EQ(state.sum, 1.0f);
  for (int i = 0; i < key_block; ++i)
    EXPECT_EQ(scores[static_cast<size_t>(i)], i == 10 ? 1.0f : 0.0f) << i;
  EXPECT_EQ(acc[0], 0.0f);  // what was there counts exp(-inf - 500)
}

TEST_P(Isa, ScorePrimitivesAreWhatTheySay) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::mt19937_64 random(6);
  std::normal_distribution<float> normal;
  std::vector<float> x(2 * key_block), y(x.size());
  for (int round = 0; round < 300; ++round) {
    const float size = round % 3 == 0 ? 1e-3f : round % 3 == 1 ? 1.0f : 100.0f;
    for (float& v : x) v = size * normal(random);
    for (float& v : y) v = normal(random);
    auto capped = x;
    GetParam()->softcap(capped.data(), std::ssize(x), 30.0f);
    auto sum = x;
    GetParam()->add(sum.data(), y.data(), std::ssize(x));
    auto nearer = x;
    const float ahead = static_cast<float>(round) - 100.0f;
    GetParam()->subtract_distance(nearer.data(), ahead, 0.25f);
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = 30.0 * std::tanh(static_cast<double>(x[i]) / 30.0);
      // The quotient rounds twice, tanh is within 8 u, the product rounds.
      EXPECT_NEAR(capped[i], exact, 11 * 0x1p-24 * std::abs(exact)) << x[i];
      EXPECT_EQ(sum[i], x[i] + y[i]);
      if (i >= key_block) continue;
      const double distance = std::abs(static_cast<double>(ahead) - static_cast<double>(i));
      const double expected = static_cast<double>(x[i]) - 0.25 * distance;
      EXPECT_NEAR(nearer[i], expected, 0x1p-23 * (std::abs(expected) + 0.25 * distance));
    }
  }
  x.assign(key_block, 1.0f);
  x[0] = x[5] = x[37] = x[63] = -inf;
  x[6] = inf;
  x[7] = nan;
  const uint64_t none = uint64_t{1} << 0 | uint64_t{1} << 5 | uint64_t{1} << 37 | uint64_t{1} << 63;
  EXPECT_EQ(GetParam()->above_minus_infinity(x.data()), ~none);
  GetParam()->softcap(x.data(), key_block, 2.0f);
  EXPECT_EQ(x[0], -2.0f);
  EXPECT_EQ(x[6], 2.0f);
  EXPECT_TRUE(std::isnan(x[7]));
}

TEST_P(Isa, TheSoftCapIsExactToEightRoundings) {
  std::vector<float> x(key_block), capped;
  for (int round = 0; round < 20000; ++round) {
    for (size_t i = 0; i < x.size(); ++i) {
      // From tiny to beyond where it saturates, of both signs; a cap of 1 rounds nothing besides.
      const float size = 12.0f * (static_cast<float>(round) + static_cast<float>(i) / 64) / 20000;
      x[i] = (i % 2 ? -1.0f : 1.0f) * (round % 50 == 0 ? 1e-30f * size : size);
    }
    capped = x;
    GetParam()->softcap(capped.data(), key_block, 1.0f);
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = std::tanh(static_cast<double>(x[i]));
      ASSERT_LE(std::abs(capped[i] - exact), 8 * 0x1p-24 * std::abs(exact)) << x[i];
      ASSERT_LE(std::abs(capped[i]), 1.0f) << x[i];
    }
  }
}

}  // namespace
}  // namespace gqa::kernels
