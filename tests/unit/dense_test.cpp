// Dense products: right, and the same bits whatever is computed beside a row.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/half.h"
#include "gqa/context.h"
#include "kernels/context.h"
#include "model/linear.h"

namespace gqa {
namespace {

constexpr float untouched = -77.0f;

/// A product with its operands: x [rows][in], rows of it x_stride apart and NaN between them.
struct Product {
  int64_t rows, in, out, x_stride;
  DType dtype;
  std::vector<std::byte> w;
  std::vector<float> x;
  std::vector<float> bias;

  Product(int64_t n_rows, int64_t n_in, int64_t n_out, DType type, int64_t gap = 3)
      : rows(n_rows), in(n_in), out(n_out), x_stride(n_in + gap), dtype(type) {
    std::mt19937_64 random(static_cast<uint64_t>(rows * 1009 + in * 31 + out));
    std::normal_distribution<float> normal;
    w.resize(static_cast<size_t>(in * out * dtype_bytes(dtype)));
    for (int64_t i = 0; i < in * out; ++i) store_element(w.data(), dtype, i, normal(random));
    x.resize(static_cast<size_t>(rows * x_stride), std::numeric_limits<float>::quiet_NaN());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < in; ++i) x[static_cast<size_t>(r * x_stride + i)] = normal(random);
    }
    for (int64_t o = 0; o < out; ++o) bias.push_back(normal(random));
  }

  /// Any order of adding up n products rounds no term more than n times: its product once, and each
  /// of at most n - 1 additions that it takes part in (zeros behind the last input add exactly).
  /// So the error is below gamma_n * sum |x w|, gamma_n = n u / (1 - n u), u = 2^-24 (Higham 2002,
  /// 3.1); a bias is a term and a rounding more. The sums in double add their own, u = 2^-53.
  void expect_right(const float* y, int64_t row, bool with_bias) const {
    const double n = static_cast<double>(in + (with_bias ? 1 : 0));
    const double gamma = n * 0x1p-24 / (1 - n * 0x1p-24) + 2 * n * 0x1p-53;
    for (int64_t o = 0; o < out; ++o) {
      double exact = with_bias ? bias[static_cast<size_t>(o)] : 0.0;
      double size = std::abs(exact);
      for (int64_t i = 0; i < in; ++i) {
        const double p = static_cast<double>(x[static_cast<size_t>(row * x_stride + i)]) *
                         load_element(w.data(), dtype, o * in + i);
        exact += p;
        size += std::abs(p);
      }
      ASSERT_LE(std::abs(y[o] - exact), gamma * size) << "row " << row << ", output " << o;
    }
  }
};

class DenseKernel : public ::testing::TestWithParam<const kernels::Table*> {
 protected:
  std::vector<float> run(const Product& p, int64_t first, int64_t rows, int64_t begin,
                         int64_t end) {
    const int64_t y_stride = p.out + 1;
    std::vector<float> y(static_cast<size_t>(rows * y_stride), untouched);
    const float* x = p.x.data() + first * p.x_stride;
    GetParam()->dense(p.dtype, p.w.data(), p.in, begin, end, x, p.x_stride, rows, y.data(),
                      y_stride, scratch_.data());
    return y;
  }

 private:
  // NaN: what a product has not written itself, it must not read.
  std::vector<float> scratch_ = std::vector<float>(static_cast<size_t>(kernels::dense_scratch),
                                                   std::numeric_limits<float>::quiet_NaN());
};

INSTANTIATE_TEST_SUITE_P(All, DenseKernel,
                         ::testing::ValuesIn(kernels::tables().begin(), kernels::tables().end()),
                         [](const auto& isa) { return std::string(isa.param->isa); });

constexpr DType all_dtypes[] = {DType::f32, DType::f16, DType::bf16};

TEST_P(DenseKernel, EqualsTheSumsInDoubleAndTouchesNothingElse) {
  for (const DType t : all_dtypes) {
    for (const int64_t in : {1, 3, 17, 127, 344}) {
      for (const int64_t out : {1, 5, 11, 250}) {
        for (const int64_t rows : {1, 2, 7, 16, 17, 70}) {
          const Product p(rows, in, out, t);
          const auto y = run(p, 0, rows, 0, out);
          for (int64_t r = 0; r < rows; ++r) {
            const float* row = y.data() + r * (out + 1);
            p.expect_right(row, r, false);
            ASSERT_EQ(row[out], untouched);
          }
          if (HasFatalFailure()) FAIL() << dtype_name(t) << " " << rows << " " << in << " " << out;
        }
      }
    }
  }
}

TEST_P(DenseKernel, SumsOverSeveralSlices) {
  for (const DType t : all_dtypes) {
    for (const int64_t in : {1023, 1024, 1025, 2100, 4097, 9300}) {
      for (const int64_t rows : {1, 2, 16, 17}) {
        const Product p(rows, in, 7, t);
        const auto y = run(p, 0, rows, 0, 7);
        for (int64_t r = 0; r < rows; ++r) p.expect_right(y.data() + r * 8, r, false);
      }
    }
  }
}

TEST_P(DenseKernel, ARowHasTheBitsItHasAlone) {
  for (const DType t : all_dtypes) {
    for (const int64_t in : {1, 3, 17, 127, 344, 1041, 5150}) {
      const int64_t out = 21;
      const int64_t most = 96;
      const Product p(most, in, out, t);
      std::vector<std::vector<float>> alone;
      for (int64_t r = 0; r < most; ++r) alone.push_back(run(p, r, 1, 0, out));
      // Every number of rows, so every tile; each starts at another row.
      for (int64_t rows = 2; rows <= most; ++rows) {
        const int64_t first = (most - rows) / 2;
        const auto y = run(p, first, rows, 0, out);
        for (int64_t r = 0; r < rows; ++r) {
          const float* row = y.data() + r * (out + 1);
          ASSERT_TRUE(std::equal(row, row + out, alone[static_cast<size_t>(first + r)].data()))
              << dtype_name(t) << ", in " << in << ", row " << r << " of " << rows;
        }
      }
    }
  }
}

TEST_P(DenseKernel, AnOutputHasTheBitsItHasAlone) {
  const int64_t out = 21;
  for (const int64_t in : {77, 1100}) {
    for (const int64_t rows : {1, 2, 7, 40}) {
      const Product p(rows, in, out, DType::bf16);
      const auto whole = run(p, 0, rows, 0, out);
      for (int64_t begin = 0; begin < out; ++begin) {
        for (int64_t end = begin; end <= out; ++end) {
          const auto part = run(p, 0, rows, begin, end);
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t o = 0; o < out; ++o) {
              const auto at = static_cast<size_t>(r * (out + 1) + o);
              ASSERT_EQ(part[at], o >= begin && o < end ? whole[at] : untouched)
                  << begin << " " << end;
            }
          }
        }
      }
    }
  }
}

TEST_P(DenseKernel, KeepsInfinitiesAndNaNInTheirRowAndOutput) {
  for (const int64_t rows : {3, 30}) {
    Product p(rows, 19, 6, DType::f32);
    p.x[static_cast<size_t>(p.x_stride + 18)] = std::numeric_limits<float>::quiet_NaN();
    store_element(p.w.data(), DType::f32, 4 * 19 + 18, std::numeric_limits<float>::infinity());
    const auto y = run(p, 0, rows, 0, 6);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < 6; ++o) {
        const float got = y[static_cast<size_t>(r * 7 + o)];
        EXPECT_EQ(std::isnan(got), r == 1) << r << " " << o;
        EXPECT_EQ(std::isinf(got), r != 1 && o == 4) << r << " " << o;
      }
    }
  }
}

std::vector<float> run_linear(Context::Impl& context, const Product& p, int64_t first, int64_t rows,
                              bool with_bias) {
  Linear layer{p.w.data(), p.dtype, p.in, p.out, {}};
  if (with_bias) layer.bias = p.bias;
  std::vector<float> y(static_cast<size_t>(rows * p.out), untouched);
  linear(context, layer, p.x.data() + first * p.x_stride, rows, y.data());
  return y;
}

TEST(Linear, NeitherRowsNorThreadsChangeABit) {
  struct Shape {
    int64_t in, out;
  };
  for (const auto& [in, out] : {Shape{17, 5}, Shape{344, 250}, Shape{128, 1100}}) {
    for (const DType t : all_dtypes) {
      const int64_t most = 300;
      const Product p(most, in, out, t, 0);
      Context::Impl one(1, kernels::tables().front());
      const auto whole = run_linear(one, p, 0, most, true);
      for (const int64_t r : {0, 1, 95, 96, 97, 199, 299}) {
        p.expect_right(whole.data() + r * out, r, true);
        const auto alone = run_linear(one, p, r, 1, true);
        ASSERT_TRUE(std::equal(alone.begin(), alone.end(), whole.begin() + r * out)) << r;
      }
      for (int threads = 1; threads <= 8; ++threads) {
        Context::Impl many(threads, kernels::tables().front());
        for (const int64_t rows : {1, 5, 20, 70, 97, 193, 299}) {
          const auto y = run_linear(many, p, 300 - rows, rows, true);
          ASSERT_TRUE(std::equal(y.begin(), y.end(), whole.end() - rows * out))
              << threads << " threads, " << rows << " rows, in " << in;
        }
      }
    }
  }
}

TEST(Linear, AddsTheBiasOnlyWhereThereIsOne) {
  Context::Impl context(2, kernels::tables().front());
  const Product p(20, 33, 9, DType::f16, 0);
  const auto with = run_linear(context, p, 0, 20, true);
  const auto without = run_linear(context, p, 0, 20, false);
  for (size_t i = 0; i < with.size(); ++i) EXPECT_EQ(with[i], without[i] + p.bias[i % 9]);
  EXPECT_TRUE(run_linear(context, p, 0, 0, true).empty());
}

}  // namespace
}  // namespace gqa
