// What units that multiply tiles do.
#include <gtest/gtest.h>

#include "kernels/hardware_tiles.h"

#if defined(__x86_64__)

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "core/half.h"
#include "emulated/tiles.h"
#include "gqa/error.h"

namespace gqa::kernels {
namespace {

using Random = std::mt19937_64;

/// Memory of a tile, and beside it.
constexpr int64_t stride = 80;
struct Bytes {
  std::vector<std::byte> data = std::vector<std::byte>(static_cast<size_t>(20 * stride));

  explicit Bytes(Random& random) {
    for (std::byte& b : data) b = static_cast<std::byte>(random());
  }
  template <typename T>
  T get(int64_t row, int64_t i) const {
    T x;
    std::memcpy(&x, data.data() + row * stride + i * static_cast<int64_t>(sizeof x), sizeof x);
    return x;
  }
  template <typename T>
  void set(int64_t row, int64_t i, T x) {
    std::memcpy(data.data() + row * stride + i * static_cast<int64_t>(sizeof x), &x, sizeof x);
  }
};

/// Numbers of all sizes, some of them special: as f32 (whose upper halves are bf16) or as bf16.
template <typename T>
void fill_floats(Random& random, Bytes& x) {
  std::normal_distribution<float> normal;
  for (size_t i = 0; i + sizeof(T) <= x.data.size(); i += sizeof(T)) {
    float f = normal(random);
    const auto special = random() % 200;
    if (special < 8) f = std::ldexp(f, -140 + static_cast<int>(random() % 30));
    if (special == 8) f = -0.0f;
    if (special == 9) f = std::numeric_limits<float>::infinity();
    if (special == 10) f = std::numeric_limits<float>::quiet_NaN();
    if (special > 11 && special < 20) f = std::ldexp(f, static_cast<int>(random() % 100) - 60);
    const auto bits = std::bit_cast<uint32_t>(f);
    const T element = static_cast<T>(sizeof(T) == 2 ? bits >> 16 : bits);
    std::memcpy(x.data.data() + i, &element, sizeof element);
  }
}

/// C is tile 2, A tile 5 and B tile 7.
struct Shape {
  int rows, depth, columns;  ///< depth and columns in words
  explicit Shape(Random& random)
      : rows(static_cast<int>(random() % 16) + 1),
        depth(static_cast<int>(random() % 16) + 1),
        columns(static_cast<int>(random() % 16) + 1) {}
  TileShapes tiles() const {
    TileShapes s;
    const auto set = [&](int tile, int n, int words) {
      s.rows[tile] = static_cast<uint8_t>(n);
      s.row_bytes[tile] = static_cast<uint16_t>(4 * words);
    };
    set(2, rows, columns);
    set(5, rows, depth);
    set(7, depth, columns);
    return s;
  }
};

/// What a unit makes of C += A * B, in the memory of C.
template <class Unit>
Bytes product(const Shape& shape, bool bf16, Bytes c, const Bytes& a, const Bytes& b) {
  Unit::configure(shape.tiles());
  Unit::template load<2>(c.data.data(), stride);
  Unit::template load<5>(a.data.data(), stride);
  Unit::template load<7>(b.data.data(), stride);
  if (bf16) {
    Unit::template add_bf16<2, 5, 7>();
  } else {
    Unit::template add_int8<2, 5, 7>();
  }
  Unit::template store<2>(c.data.data(), stride);
  Unit::release();
  return c;
}

float flushed(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

class Emulated : public ::testing::Test {
 protected:
  void SetUp() override {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!avx2) GTEST_SKIP() << "tiles are emulated with AVX2";
  }
  Random random_{1};
};

TEST_F(Emulated, Bf16ProductsAreChainsOfEvenAndOfOddElements) {
  for (int round = 0; round < 300; ++round) {
    const Shape shape(random_);
    Bytes a(random_), b(random_), c(random_);
    fill_floats<uint16_t>(random_, a);
    fill_floats<uint16_t>(random_, b);
    fill_floats<uint32_t>(random_, c);
    Bytes expected = c;
    for (int m = 0; m < shape.rows; ++m) {
      for (int n = 0; n < shape.columns; ++n) {
        float sums[2] = {};
        for (int k = 0; k < 2 * shape.depth; ++k) {
          const float x = flushed(bf16_to_f32(a.get<uint16_t>(m, k)));
          const float y = flushed(bf16_to_f32(b.get<uint16_t>(k / 2, 2 * n + k % 2)));
          sums[k % 2] = flushed(std::fma(x, y, sums[k % 2]));
        }
        const float both = flushed(sums[0] + sums[1]);
        expected.set(m, n, flushed(flushed(c.get<float>(m, n)) + both));
      }
    }
    const Bytes got = product<EmulatedTiles>(shape, true, c, a, b);
    for (int m = 0; m < 20; ++m) {
      for (int n = 0; n < stride / 4; ++n) {
        const auto x = got.get<float>(m, n), y = expected.get<float>(m, n);
        ASSERT_TRUE(got.get<uint32_t>(m, n) == expected.get<uint32_t>(m, n) ||
                    (std::isnan(x) && std::isnan(y)))
            << m << " " << n << ": " << x << ", expected " << y;
      }
    }
  }
}

TEST_F(Emulated, IntegerProductsAreExactAndWrap) {
  for (int round = 0; round < 300; ++round) {
    const Shape shape(random_);
    const Bytes a(random_), b(random_), c(random_);
    Bytes expected = c;
    for (int m = 0; m < shape.rows; ++m) {
      for (int n = 0; n < shape.columns; ++n) {
        int64_t sum = c.get<int32_t>(m, n);
        for (int k = 0; k < 4 * shape.depth; ++k) {
          sum += int64_t{a.get<int8_t>(m, k)} * b.get<int8_t>(k / 4, 4 * n + k % 4);
        }
        expected.set(m, n, static_cast<int32_t>(sum));
      }
    }
    ASSERT_EQ(product<EmulatedTiles>(shape, false, c, a, b).data, expected.data);
  }
}

TEST_F(Emulated, RoundsAsTheScalarCodeDoesButForSubnormalNumbers) {
  for (uint64_t bits = 0; bits < 0x100000000u; bits += 32 * 60'013) {
    float x[32];
    uint16_t got[32];
    for (uint32_t i = 0; i < 32; ++i) {
      x[i] = std::bit_cast<float>(static_cast<uint32_t>(bits) + i * 60'013);
    }
    EmulatedTiles::round(x, got);
    for (int i = 0; i < 32; ++i) {
      if (std::isnan(x[i])) {
        ASSERT_TRUE(std::isnan(bf16_to_f32(got[i])));
      } else {
        ASSERT_EQ(got[i], f32_to_bf16(flushed(x[i]))) << x[i];
      }
    }
  }
}

TEST_F(Emulated, WhatTheProcessorRefusesIsRefused) {
  Random random(2);
  const Bytes x(random);
  Shape shape(random);
  EXPECT_THROW(EmulatedTiles::load<2>(x.data.data(), stride), Error);
  TileShapes shapes = shape.tiles();
  ++shapes.rows[5];
  EmulatedTiles::configure(shapes);
  EXPECT_THROW((EmulatedTiles::add_int8<2, 5, 7>()), Error);
  shapes.rows[5] = 17;
  EXPECT_THROW(EmulatedTiles::configure(shapes), Error);
  EmulatedTiles::release();
  EXPECT_THROW(EmulatedTiles::zero<2>(), Error);
}

TEST(HardwareTiles, RoundAsEmulatedOnes) {
  if (!__builtin_cpu_supports("avx512bf16")) GTEST_SKIP() << "no AVX512_BF16 here";
  Random random(3);
  for (int round = 0; round < 100'000; ++round) {
    float x[32];
    for (float& f : x) f = std::bit_cast<float>(static_cast<uint32_t>(random()));
    uint16_t hardware[32], emulated[32];
    HardwareTiles::round(x, hardware);
    EmulatedTiles::round(x, emulated);
    ASSERT_EQ(std::memcmp(hardware, emulated, sizeof hardware), 0);
  }
}

TEST(HardwareTiles, MultiplyAsEmulatedOnes) {
  if (!HardwareTiles::available()) GTEST_SKIP() << "no AMX here: its products are not compared";
  Random random(4);
  for (int round = 0; round < 3000; ++round) {
    const Shape shape(random);
    const bool bf16 = round % 2 == 0;
    Bytes a(random), b(random), c(random);
    if (bf16) {
      fill_floats<uint16_t>(random, a);
      fill_floats<uint16_t>(random, b);
      fill_floats<uint32_t>(random, c);
    }
    const Bytes hardware = product<HardwareTiles>(shape, bf16, c, a, b);
    const Bytes emulated = product<EmulatedTiles>(shape, bf16, c, a, b);
    for (int m = 0; m < 20; ++m) {
      for (int n = 0; n < stride / 4; ++n) {
        const bool nan = bf16 && std::isnan(hardware.get<float>(m, n));
        ASSERT_TRUE(nan ? std::isnan(emulated.get<float>(m, n))
                        : hardware.get<uint32_t>(m, n) == emulated.get<uint32_t>(m, n))
            << m << " " << n;
      }
    }
  }
}

}  // namespace
}  // namespace gqa::kernels

#endif
