// Words in panels give products the bits that the same words in rows give.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/kv_words.h"
#include "kernels/kernels.h"

namespace gqa::kernels {
namespace {

using Random = std::mt19937_64;
constexpr KvDType element_types[] = {KvDType::f32, KvDType::f16, KvDType::bf16};

/// The same matrix in both orders.
struct Matrix {
  std::vector<std::byte> rows, panels;
  WordOrder order_of_panels;

  Matrix(KvDType t, int64_t depth, int64_t columns, Random& random)
      : rows(static_cast<size_t>(words_bytes(t, depth, columns))),
        panels(rows.size()),
        order_of_panels(WordOrder::panels(t, depth, columns)) {
    fill(t, random);
    const int64_t bytes = word_bytes(t);
    const WordOrder by_rows = WordOrder::rows(columns);
    for (int64_t i = 0; i < std::ssize(rows) / bytes; ++i) {
      const int64_t row = i / columns, column = i % columns;
      std::memcpy(panels.data() + order_of_panels.at(row, column) * bytes,
                  rows.data() + by_rows.at(row, column) * bytes, static_cast<size_t>(bytes));
    }
  }

 private:
  void fill(KvDType t, Random& random) {
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < rows.size(); i += 4) {
      auto bits = static_cast<uint32_t>(random());
      if (t == KvDType::f32) {
        const float x = normal(random);
        std::memcpy(&bits, &x, sizeof bits);
      } else {
        bits &= 0xbfffbfff;  // exponents that leave products finite
      }
      std::memcpy(rows.data() + i, &bits, sizeof bits);
    }
  }
};

class Isa : public ::testing::TestWithParam<const Table*> {
 protected:
  void SetUp() override {
    if (!GetParam()->panels) GTEST_SKIP() << "wants words in rows";
  }
  std::vector<float> normals(int64_t n) {
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = normal_(random_);
    return x;
  }
  Random random_{3};
  std::normal_distribution<float> normal_;
};
INSTANTIATE_TEST_SUITE_P(All, Isa, ::testing::ValuesIn(tables().begin(), tables().end()),
                         [](const auto& isa) { return std::string(isa.param->isa); });

/// Keys [first, second) of a block, any that are some.
Range some_keys(Random& random) {
  const auto begin = static_cast<int32_t>(random() % 3 == 0 ? random() % key_block : 0);
  const auto most = static_cast<uint64_t>(key_block - begin);
  const auto n = static_cast<int32_t>(random() % 3 == 0 ? 1 + random() % most : most);
  return {begin, begin + n};
}

TEST_P(Isa, ScoresOfPanelsAreThoseOfRows) {
  const Table& table = *GetParam();
  for (const KvDType t : element_types) {
    for (int64_t rows = 1; rows <= 13; ++rows) {
      for (const int64_t dim : {1, 7, 24, 64, 80, 129}) {
        const Matrix k(t, dim, key_block, random_);
        const int64_t query_bytes = table.query_bytes(t, dim);
        std::vector<std::byte> queries(static_cast<size_t>(rows * query_bytes));
        for (int64_t r = 0; r < rows; ++r) {
          table.prepare_query(t, normals(dim).data(), dim, 0.1f, queries.data() + r * query_bytes);
        }
        const Range keys = some_keys(random_);
        const auto scores = [&](const std::vector<std::byte>& words, const WordOrder& order) {
          std::vector<float> x(static_cast<size_t>(rows * key_block));
          table.score(queries.data(), rows, dim, {words.data(), t, order}, keys, x.data(),
                      key_block, {});
          return x;
        };
        const auto a = scores(k.rows, WordOrder::rows(key_block));
        const auto b = scores(k.panels, k.order_of_panels);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t s = keys.begin; s < keys.end; ++s) {
            const auto i = static_cast<size_t>(r * key_block + s);
            ASSERT_EQ(a[i], b[i]) << kv_dtype_name(t) << " row " << r << " of " << rows << " key "
                                  << s << " size " << dim;
          }
        }
      }
    }
  }
}

TEST_P(Isa, SumsOfValuesInPanelsAreThoseOfRows) {
  const Table& table = *GetParam();
  for (const KvDType t : element_types) {
    for (int64_t rows = 1; rows <= 13; ++rows) {
      for (const int64_t dim : {16, 32, 48, 80, 112, 128}) {
        const Matrix v(t, key_block, dim, random_);
        std::vector<float> weights = normals(rows * key_block);
        for (float& w : weights) w = std::exp(-3 * std::abs(w));
        const std::vector<uint64_t> visible(static_cast<size_t>(rows), ~uint64_t{0});
        const std::vector<float> before = normals(rows * dim);
        const Range keys = some_keys(random_);
        const auto sums = [&](const std::vector<std::byte>& words, const WordOrder& order) {
          std::vector<float> acc = before;
          const BlockWords v{words.data(), t, order};
          const WeighedBlock block{weights.data(), key_block, visible.data(), &v, keys};
          table.accumulate(std::span(&block, 1), rows, dim, acc.data(), dim);
          return acc;
        };
        ASSERT_EQ(sums(v.rows, WordOrder::rows(dim)), sums(v.panels, v.order_of_panels))
            << kv_dtype_name(t) << " " << rows << " rows, keys " << keys.begin << " to " << keys.end
            << ", size " << dim;
      }
    }
  }
}

}  // namespace
}  // namespace gqa::kernels
