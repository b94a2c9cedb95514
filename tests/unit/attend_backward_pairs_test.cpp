// The backward where products are of bf16: on tiles, and in software on every machine.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "kernels/context.h"
#include "support/all_tables.h"
#include "support/backward_comparison.h"

namespace gqa {
namespace {

using kernels::key_block;
using kernels::Table;
using test::BackwardBatch;
using test::BackwardProblem;
using test::draw;
using test::Random;

std::vector<const Table*> all_tables() {
  std::vector<const Table*> all = test::all_tables();
  all.push_back(&kernels::emulated_pairs_table());
  return all;
}

/// Those that have such products.
std::vector<const Table*> tables() {
  std::vector<const Table*> all = all_tables();
  std::erase_if(all, [](const Table* table) { return !table->multiply_pairs; });
  return all;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Table* table : tables()) names.emplace_back(table->isa);
  return names;
}

TEST(AttendBackwardInBf16, EveryMachineHasIt) {
  const auto names = isas();
  EXPECT_FALSE(names.empty());
  for (const std::string& name : names) {
    const Context context({.threads = 1, .isa = name});
    EXPECT_EQ(context.isa(), name);
  }
}

TEST(AttendBackwardInBf16, EqualsTheOracleOnRandomConfigurations) {
  const test::BackwardComparison comparison(isas());
  Random random(20241127);
  for (int done = 0; done < test::rounds(2'000);) {
    BackwardBatch b(random, 150'000, DType::bf16);
    comparison.expect_gradients(b);
    ASSERT_FALSE(HasFatalFailure()) << "configuration " << done;
    done += static_cast<int>(b.problems.size());
  }
}

/// More rows than a tile has, several chunks, and sizes at which nothing is padded.
TEST(AttendBackwardInBf16, EqualsTheOracleOnLongSequences) {
  const test::BackwardComparison comparison(isas());
  Random random(31);
  for (int round = 0; round < test::rounds(12); ++round) {
    BackwardBatch b(random, 20'000, DType::bf16);
    auto& s = b.sizes.front();
    s.q_len = 200 / (s.q_heads / s.kv_heads) + draw(random, 1, 20);
    s.kv_len = draw(random, 900, 1300);
    s.head_dim = test::pick<int64_t>(random, {32, draw(random, 1, 70)});
    s.v_head_dim = test::pick<int64_t>(random, {64, draw(random, 1, 70)});
    b.problems.front() = std::make_unique<BackwardProblem>();
    test::fill_backward(random, *b.problems.front(), s, DType::bf16);
    if (round % 2 == 0) b.options.options.mask = {};
    comparison.expect_gradients(b);
    ASSERT_FALSE(HasFatalFailure()) << "round " << round;
  }
}

/// Weights near 1 and 0 alike, which bf16 holds exactly, would not show it.
TEST(AttendBackwardInBf16, RoundsOperandsWhereItSaysSo) {
  Random random(5);
  for (const std::string& isa : isas()) {
    std::vector<test::GradientMemory> found;
    BackwardProblem p;
    test::fill_backward(random, p, {40, 4, 2, 64, 64, 90}, DType::bf16);
    p.item.forward.bias = {};
    p.item.dbias = {};
    p.dv = {random, DType::f32, p.forward.v.shape, true};
    p.item.dv = p.dv.mut();
    for (const std::string& name : {isa, std::string(kernels::tables().back()->isa)}) {
      Context context({.threads = 1, .isa = name});
      attend(context, std::span(&p.item.forward, 1));
      p.forget_gradients();
      attend_backward(context, std::span(&p.item, 1));
      found.emplace_back(p);
    }
    EXPECT_NE(found[0].dv, found[1].dv) << isa;
  }
}

TEST(AttendBackwardInBf16, ThreadsChangeNone) {
  Random random(7);
  for (const std::string& isa : isas()) {
    Context one({.threads = 1, .isa = isa});
    for (int round = 0; round < test::rounds(60); ++round) {
      BackwardBatch b(random, round % 20 == 0 ? 1'000'000 : 100'000, DType::bf16);
      Context several({.threads = static_cast<int>(draw(random, 2, 8)), .isa = isa});
      attend(one, b.forward_items(), b.options.options);
      const auto gradients = [&](Context& context) {
        for (const auto& p : b.problems) p->forget_gradients();
        attend_backward(context, b.items(), b.options.options, b.dsinks);
        std::vector<test::GradientMemory> memory;
        for (const auto& p : b.problems) memory.emplace_back(*p);
        return memory;
      };
      ASSERT_EQ(gradients(one), gradients(several)) << isa << ", round " << round;
    }
  }
}

/// A key that is NaN: rows that see it have gradients of NaN, and no others.
TEST(AttendBackwardInBf16, NanReachesTheRowsThatSeeItAndNoOthers) {
  Random random(8);
  const test::Sizes s{70, 2, 1, 40, 24, 150};
  for (const std::string& isa : isas()) {
    Context context({.threads = 2, .isa = isa});
    for (int round = 0; round < 20; ++round) {
      BackwardProblem p;
      test::fill_backward(random, p, s, DType::bf16);
      auto& kv = std::get<StridedKv>(p.item.forward.kv);
      p.item.forward.q_start = {};
      p.item.forward.prefix = 0;
      p.item.forward.bias = {};
      p.item.forward.selected = {};
      p.item.dbias = {};
      p.item.dq = p.dq.mut();
      const int64_t first = std::max(kv.first_key, s.kv_len - s.q_len + 1);
      if (first >= s.kv_len) continue;
      const int64_t key = draw(random, first, s.kv_len - 1);
      const int64_t logical = key / kv.k.shape[1];
      const int64_t page = kv.pages.empty() ? logical : kv.pages[static_cast<size_t>(logical)];
      const bool value = round % 2 == 0;
      auto& spoiled = value ? p.forward.v : p.forward.k;
      spoiled.set({page, key % kv.k.shape[1], 0, 3}, std::nanf(""));
      attend(context, std::span(&p.item.forward, 1));
      attend_backward(context, std::span(&p.item, 1));
      p.dq.visit([&](const auto& at) {
        const bool sees = s.kv_len - s.q_len + at[0] >= key;
        EXPECT_EQ(std::isnan(p.dq.get(at)), sees) << isa << ", token " << at[0] << ", key " << key;
      });
    }
  }
}

/// Random numbers that bf16 holds.
std::vector<float> bf16_numbers(Random& random, int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(n));
  for (float& y : x) y = bf16_to_f32(f32_to_bf16(normal(random)));
  return x;
}

/// Rows in which a product reads operands and leaves sums, with NaN beside them.
TEST(PairProducts, AreTheProductsOfTheMatrices) {
  Random random(9);
  for (const Table* table : tables()) {
    for (int round = 0; round < test::rounds(100); ++round) {
      const int64_t rows = draw(random, 1, 70), columns = 16 * draw(random, 1, 5);
      const int64_t depth = kernels::pair_depth * draw(random, 1, 4);
      const int64_t a_stride = depth + 2 * draw(random, 0, 20),
                    c_stride = columns + draw(random, 0, 9);
      const auto a = bf16_numbers(random, rows * a_stride),
                 b = bf16_numbers(random, depth * columns);
      auto c = bf16_numbers(random, rows * c_stride);
      const auto before = c;
      std::vector<uint16_t> a16(a.size());
      table->encode(DType::bf16, a.data(), std::ssize(a), a16.data());
      std::vector<uint32_t> words(b.size() / 2);
      table->pair_rows(b.data(), columns, depth, columns, words.data());
      const float scale = round % 3 == 0 ? 1.0f : -0.75f;
      const bool add = round % 2 == 0;
      table->multiply_pairs({a16.data(), a_stride, words.data(), c.data(), c_stride, scale, add,
                             rows, depth, columns});
      table->end_run();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < c_stride; ++i) {
          const auto at = static_cast<size_t>(r * c_stride + i);
          if (i >= columns) {
            ASSERT_EQ(c[at], before[at]) << table->isa << ": wrote beside";
            continue;
          }
          double sum = 0, size = 0;
          for (int64_t k = 0; k < depth; ++k) {
            const double term = static_cast<double>(a[static_cast<size_t>(r * a_stride + k)]) *
                                b[static_cast<size_t>(k * columns + i)];
            sum += term;
            size += std::abs(term);
          }
          const double expected = scale * sum + (add ? before[at] : 0.0f);
          // Each addition of the sum, the scale's product, and the last sum round.
          const double bound =
              0x1p-24 * (static_cast<double>(depth + 2) * size + 2 * std::abs(expected) + 1e-30);
          ASSERT_NEAR(c[at], expected, bound)
              << table->isa << " " << rows << "x" << depth << "x" << columns;
        }
      }
    }
  }
}

TEST(PairProducts, WordsArePairsOfRoundedRows) {
  Random random(10);
  std::normal_distribution<float> normal;
  for (const Table* table : all_tables()) {
    for (int64_t rows = 1; rows < 8; ++rows) {
      const int64_t columns = 16 * draw(random, 1, 3), stride = columns + draw(random, 0, 5);
      std::vector<float> x(static_cast<size_t>(rows * stride));
      for (float& y : x) y = normal(random);
      x[1] = std::nanf("");
      std::vector<uint32_t> words(static_cast<size_t>((rows + 1) / 2 * columns), 99);
      table->pair_rows(x.data(), stride, rows, columns, words.data());
      for (int64_t r = 0; r < rows + rows % 2; ++r) {
        for (int64_t i = 0; i < columns; ++i) {
          const uint32_t word = words[static_cast<size_t>(r / 2 * columns + i)];
          const uint16_t expected =
              r < rows ? f32_to_bf16(x[static_cast<size_t>(r * stride + i)]) : uint16_t{0};
          ASSERT_EQ(static_cast<uint16_t>(word >> (r % 2 * 16)), expected) << table->isa;
        }
      }
    }
  }
}

TEST(PairProducts, TransposesWords) {
  Random random(11);
  for (const Table* table : all_tables()) {
    for (int round = 0; round < 20; ++round) {
      const int64_t rows = 4 * draw(random, 1, 20), columns = 4 * draw(random, 1, 20);
      std::vector<uint32_t> x(static_cast<size_t>(rows * columns)), to(x.size());
      for (uint32_t& y : x) y = static_cast<uint32_t>(random());
      table->transpose(x.data(), rows, columns, to.data());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          ASSERT_EQ(to[static_cast<size_t>(c * rows + r)], x[static_cast<size_t>(r * columns + c)])
              << table->isa;
        }
      }
    }
  }
}

}  // namespace
}  // namespace gqa
