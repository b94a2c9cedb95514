// Products of a cache's words as they are stored: in tiles, or of integers.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/kv_words.h"
#include "kernels/kernels.h"
#include "support/all_tables.h"

namespace gqa::kernels {
namespace {

/// As softmax leaves them.
std::vector<float> weights_of_one(KvDType t, int64_t rows) {
  std::vector<float> weights(static_cast<size_t>(rows * stretch_keys), 1.0f);
  if (t != KvDType::bf16) return weights;
  const std::vector<uint16_t> ones(key_block, 0x3f80);
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(&weights[static_cast<size_t>(r * stretch_keys)], ones.data(), key_block * 2);
  }
  return weights;
}

/// All keys of a block, and what rows of weights see of them.
WeighedBlock whole_block(const std::vector<float>& weights, const std::vector<uint64_t>& visible,
                         const BlockWords& v) {
  return {weights.data(), stretch_keys, visible.data(), &v, {0, key_block}};
}

using Random = std::mt19937_64;

class Tiles : public ::testing::Test {
 protected:
  void SetUp() override {
    if (emulated_tables().empty()) GTEST_SKIP() << "tiles are emulated with AVX2";
  }
  const Table& tiles() const { return *emulated_tables().front(); }
  Random random_{1};
};

/// Memory whose end is the end of what may be read.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : mapped_((bytes + 4095) / 4096 * 4096 + 4096) {
    base_ = static_cast<std::byte*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + mapped_ - 4096, 4096, PROT_NONE);
    data_ = base_ + mapped_ - 4096 - bytes;
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  std::byte* data() const { return data_; }
  void fill(int byte) const {
    std::memset(data_, byte, static_cast<size_t>(base_ + mapped_ - 4096 - data_));
  }

 private:
  size_t mapped_;
  std::byte *base_, *data_;
};

/// Rows and blocks in memory that ends where they do, and sums that are exact.
void expect_whole_sums(const Table& table, Random& random) {
  for (const KvDType t : {KvDType::bf16, KvDType::int8, KvDType::int4}) {
    if (!table.takes_stored(t)) continue;
    for (int64_t dim = 1; dim <= 130; ++dim) {
      const auto bytes = static_cast<size_t>(words_bytes(t, dim, key_block));
      const auto v_bytes = static_cast<size_t>(words_bytes(t, key_block, dim));
      const int64_t rows = 1 + dim % 35, query_bytes = table.query_bytes(t, dim);
      const Guarded k(bytes), v(v_bytes), queries(static_cast<size_t>(rows * query_bytes)),
          scratch(static_cast<size_t>(64 * 4 * std::max<int64_t>(16, dim))),
          v_scratch(static_cast<size_t>(64 * 4 * ((dim + 15) / 16 * 16)));
      const auto fill = [&](std::byte* p, size_t n) {
        // Whole numbers: of bf16 1, 2 or 4.
        for (size_t i = 0; i < n; i += 2) {
          const auto one =
              static_cast<uint16_t>(t == KvDType::bf16 ? 0x3f80 + random() % 3 * 0x80 : random());
          std::memcpy(p + i, &one, 2);
        }
      };
      fill(k.data(), bytes);
      fill(v.data(), v_bytes);
      for (const Guarded* x : {&scratch, &v_scratch}) x->fill(0xff);  // NaN
      const std::vector<float> q(static_cast<size_t>(dim), 1.0f);
      for (int64_t r = 0; r < rows; ++r) {
        table.prepare_query(t, q.data(), dim, 0.5f, queries.data() + r * query_bytes);
      }
      const auto size = static_cast<size_t>(rows * key_block);
      std::vector<float> scores(size);
      const std::vector<float> weights = weights_of_one(t, rows);
      const auto keys = table.arrange(t, k.data(), WordOrder::rows(key_block), dim, key_block, rows,
                                      scratch.data());
      table.score(queries.data(), rows, dim, keys, {0, key_block}, scores.data(), key_block, {});
      const std::vector<uint64_t> visible(static_cast<size_t>(rows), ~uint64_t{0});
      const int64_t stride = (dim + 15) / 16 * 16;
      std::vector<float> acc(static_cast<size_t>(rows * stride), 1.0f);
      const auto values =
          table.arrange(t, v.data(), WordOrder::rows(dim), key_block, dim, rows, v_scratch.data());
      const WeighedBlock block = whole_block(weights, visible, values);
      table.accumulate(std::span(&block, 1), rows, dim, acc.data(), stride);
      table.end_run();
      // But for the scale of a row, which rounds.
      for (int64_t s = 0; s < key_block; ++s) {
        float sum = 0;
        for (int64_t d = 0; d < dim; ++d)
          sum += load_packed(t, k.data(), WordOrder::rows(key_block), d, s);
        for (int64_t r = 0; r < rows; ++r) {
          const float got = scores[static_cast<size_t>(r * key_block + s)];
          ASSERT_NEAR(got, 0.5f * sum, 1e-6f * 127 * 130) << r << " of " << rows << ", " << dim;
        }
      }
      for (int64_t d = 0; d < stride; ++d) {
        float sum = 1;
        for (int64_t s = 0; s < key_block && d < dim; ++s)
          sum += load_packed(t, v.data(), WordOrder::rows(dim), s, d);
        for (int64_t r = 0; r < rows; ++r) {
          const float got = acc[static_cast<size_t>(r * stride + d)];
          ASSERT_NEAR(got, sum, 1e-6f * 127 * 64) << r << " of " << rows << ", " << dim;
        }
      }
    }
  }
}

TEST(StoredProducts, RowsAndBlocksAreReadToTheirEndAndNoFurther) {
  Random random{1};
  for (const Table* table : test::all_tables()) {
    SCOPED_TRACE(table->isa);
    expect_whole_sums(*table, random);
  }
}

/// A block of keys, all elements the largest integer; those behind the last one are 0, as in a
/// cache.
std::vector<std::byte> largest_keys(KvDType t, int64_t dim) {
  const bool bytes = t == KvDType::int8;
  std::vector<std::byte> k(static_cast<size_t>(words_bytes(t, dim, key_block)),
                           static_cast<std::byte>(bytes ? 0x7f : 0x77));
  const int64_t n = word_elements(t);
  for (int64_t e = dim; e % n != 0; ++e) {
    for (int64_t s = 0; s < key_block; ++s) {
      std::byte& byte = k[static_cast<size_t>(4 * (e / n * key_block + s) + e % 4)];
      byte &= static_cast<std::byte>(bytes ? 0 : e % n < 4 ? 0xf0 : 0x0f);
    }
  }
  return k;
}

/// More elements of one sign than 32 bits can add up.
TEST(StoredProducts, LongRowsDoNotOverflow) {
  for (const Table* table : test::all_tables()) {
    for (const KvDType t : {KvDType::int8, KvDType::int4}) {
      if (!table->takes_stored(t)) continue;
      for (const int64_t dim : {511, 512, 513, 520, 600, 1031, 2048}) {
        const std::vector<float> q(static_cast<size_t>(dim), -1.0f);
        std::vector<std::byte> query(static_cast<size_t>(table->query_bytes(t, dim)));
        table->prepare_query(t, q.data(), dim, 0.5f, query.data());
        const std::vector<std::byte> k = largest_keys(t, dim);
        std::vector<float> scratch(static_cast<size_t>(64 * (dim + 16))), scores(key_block);
        const auto keys = table->arrange(t, k.data(), WordOrder::rows(key_block), dim, key_block, 1,
                                         scratch.data());
        table->score(query.data(), 1, dim, keys, {0, key_block}, scores.data(), key_block, {});
        table->end_run();
        const float sum = -0.5f * static_cast<float>(dim * largest_int(t));
        for (const float score : scores) {
          ASSERT_NEAR(score, sum, 1e-5f * -sum) << table->isa << " " << dim;
        }
      }
    }
  }
}

/// Integers' sums are exact, so that it makes no difference how they are computed.
TEST_F(Tiles, IntegerTilesGiveTheBitsOfVnni) {
  const Table* vnni = nullptr;
  for (const Table* table : test::all_tables()) {
    if (table->isa == "avx512_vnni" || table->isa == "vnni_emulated") vnni = table;
  }
  ASSERT_TRUE(vnni);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 100; ++round) {
    const KvDType t = round % 2 ? KvDType::int8 : KvDType::int4;
    const auto rows = static_cast<int64_t>(random_() % 40 + 1);
    const auto dim = static_cast<int64_t>(random_() % 150 + 1);
    const int64_t acc_row = (dim + 15) / 16 * 16;
    std::vector<std::byte> k(static_cast<size_t>(words_bytes(t, dim, key_block)));
    std::vector<std::byte> v(static_cast<size_t>(words_bytes(t, key_block, dim)));
    for (auto* x : {&k, &v}) {
      for (std::byte& b : *x) b = static_cast<std::byte>(random_());
    }
    // Elements behind the last one are 0.
    const int64_t n = word_elements(t), used = dim % n;
    if (used != 0) {
      std::fill(k.end() - key_block * 4, k.end(), std::byte{0});
    }
    std::vector<float> q(static_cast<size_t>(rows * dim)),
        weights(static_cast<size_t>(rows * stretch_keys));
    for (float& x : q) x = normal(random_);
    for (float& w : weights) w = std::exp(-3 * std::abs(normal(random_)));
    const std::vector<uint64_t> visible(static_cast<size_t>(rows), ~uint64_t{0});
    std::vector<std::vector<float>> results;
    for (const Table* table : {vnni, &tiles()}) {
      const int64_t query_bytes = table->query_bytes(t, dim);
      std::vector<std::byte> queries(static_cast<size_t>(rows * query_bytes));
      for (int64_t r = 0; r < rows; ++r) {
        table->prepare_query(t, q.data() + r * dim, dim, 0.1f, queries.data() + r * query_bytes);
      }
      std::vector<float> scratch(static_cast<size_t>(64 * (dim + 16)));
      std::vector<float> scores(static_cast<size_t>(rows * key_block));
      std::vector<float> acc(static_cast<size_t>(rows * acc_row), 0.25f);
      const auto keys = table->arrange(t, k.data(), WordOrder::rows(key_block), dim, key_block,
                                       rows, scratch.data());
      table->score(queries.data(), rows, dim, keys, {0, key_block}, scores.data(), key_block, {});
      const auto values =
          table->arrange(t, v.data(), WordOrder::rows(dim), key_block, dim, rows, scratch.data());
      const WeighedBlock block = whole_block(weights, visible, values);
      table->accumulate(std::span(&block, 1), rows, dim, acc.data(), acc_row);
      table->end_run();
      results.push_back(scores);
      results.push_back(acc);
    }
    ASSERT_EQ(results[0], results[2]) << rows << " " << dim;
    ASSERT_EQ(results[1], results[3]) << rows << " " << dim;
  }
}

}  // namespace
}  // namespace gqa::kernels
