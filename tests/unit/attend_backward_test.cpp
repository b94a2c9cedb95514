// attend_backward() against the oracle.
#include <gtest/gtest.h>

#include <memory>

#include "kernels/context.h"
#include "support/backward_comparison.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::BackwardBatch;
using test::BackwardComparison;
using test::BackwardProblem;
using test::draw;
using test::Random;

TEST_P(Isa, IsTheOneThatRuns) {
  Context context({.threads = 1, .isa = GetParam()});
  EXPECT_EQ(context.isa(), GetParam());
  EXPECT_EQ(context.impl().kernels->isa, GetParam());
}

/// Among the arrays are some that are all bf16, which are multiplied as such where that is faster.
TEST(AttendBackward, EqualsTheOracleOnRandomConfigurationsOnEveryInstructionSet) {
  auto isas = tested_isas();
  isas.emplace_back(kernels::emulated_pairs_table().isa);
  const BackwardComparison comparison(isas);
  Random random(20241123);
  for (int done = 0; done < test::rounds(6'000);) {
    BackwardBatch b(random, 150'000);
    comparison.expect_gradients(b);
    ASSERT_FALSE(HasFatalFailure()) << "configuration " << done;
    done += static_cast<int>(b.problems.size());
  }
}

/// Several chunks of keys, several tiles of tokens, several groups.
TEST(AttendBackward, EqualsTheOracleOnLongSequencesOnEveryInstructionSet) {
  const BackwardComparison comparison(tested_isas());
  Random random(3);
  for (int round = 0; round < test::rounds(60); ++round) {
    BackwardBatch b(random, 20'000);
    auto& s = b.sizes.front();
    s.q_len = round % 4 == 0 ? draw(random, 30, 150) : draw(random, 1, 9);
    s.kv_len = test::pick<int64_t>(random, {draw(random, 1100, 2047), 2048, 2049, 3100});
    s.head_dim = draw(random, 1, 8);
    s.v_head_dim = draw(random, 1, 8);
    b.problems.front() = std::make_unique<BackwardProblem>();
    test::fill_backward(random, *b.problems.front(), s);
    if (round % 2 == 0) b.options.options.mask = {};
    comparison.expect_gradients(b);
    ASSERT_FALSE(HasFatalFailure()) << "round " << round;
  }
}

/// More than a tile has rows for.
TEST(AttendBackward, EqualsTheOracleWithManyHeadsToAGroup) {
  const BackwardComparison comparison(tested_isas());
  Random random(4);
  for (int round = 0; round < 4; ++round) {
    BackwardBatch b(random, 1000);
    b.problems.resize(1);
    b.problems.front() = std::make_unique<BackwardProblem>();
    b.sizes = {
        {.q_len = 5, .q_heads = 420, .kv_heads = 2, .head_dim = 6, .v_head_dim = 7, .kv_len = 90}};
    b.options.options.alibi = b.options.options.sinks = {};
    b.dsinks.clear();
    b.options.options.group_offsets = {};
    const std::vector<int32_t> unequal{0, 1, 420};
    if (round % 2 == 0) b.options.options.group_offsets = unequal;
    test::fill_backward(random, *b.problems.front(), b.sizes.front());
    comparison.expect_gradients(b);
  }
}

/// Rows without keys: before the first key, no keys at all, behind the window, masked by the bias.
TEST_P(Isa, RowsThatSeeNoKeyGiveZero) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(5);
  std::vector<float> sinks{1.0f, -2.0f, 80.0f, 0.0f}, dsinks(4);
  const auto expect_zero = [&](const test::Sizes& s, const Mask& mask, std::optional<int64_t> start,
                               bool masked) {
    BackwardProblem p;
    test::fill_backward(random, p, s);
    p.item.forward.q_start = start;
    p.item.forward.prefix = 0;
    p.item.forward.bias = {};
    p.item.forward.selected = {};
    p.item.dq = p.dq.mut();
    p.item.dk = p.dk.mut();
    p.item.dv = p.dv.mut();
    p.item.dbias = {};
    if (masked) {
      p.forward.bias = {random, DType::f16, {1, s.q_len, s.kv_len}, false};
      p.forward.bias.fill([] { return -std::numeric_limits<float>::infinity(); });
      p.item.forward.bias = p.forward.bias.view();
      p.dbias = {random, DType::f32, p.forward.bias.shape, false};
      p.item.dbias = p.dbias.mut();
    }
    const AttendOptions options{.mask = mask, .sinks = sinks};
    attend(context, std::span(&p.item.forward, 1), options);
    std::fill(dsinks.begin(), dsinks.end(), 99.0f);
    attend_backward(context, std::span(&p.item, 1), options, dsinks);
    p.dq.for_each([](float x) { EXPECT_EQ(x, 0); });
    test::visit_keys(std::get<StridedKv>(p.item.forward.kv), p.dk.shape,
                     [&](const auto& at, int64_t) { EXPECT_EQ(p.dk.get(at), 0); });
    test::visit_keys(std::get<StridedKv>(p.item.forward.kv), p.dv.shape,
                     [&](const auto& at, int64_t) { EXPECT_EQ(p.dv.get(at), 0); });
    if (masked) p.dbias.for_each([](float x) { EXPECT_EQ(x, 0); });
    EXPECT_EQ(dsinks, std::vector<float>(4, 0.0f));
  };
  for (int round = 0; round < 20; ++round) {
    expect_zero({6, 4, 2, 9, 5, 100}, {}, -6, false);
    expect_zero({6, 4, 2, 9, 5, 0}, {.causal = false}, {}, false);
    expect_zero({0, 4, 2, 9, 5, 70}, {.causal = false}, {}, false);
    expect_zero({6, 4, 2, 9, 5, 100}, {.window = 5}, 104, false);
    expect_zero({6, 4, 2, 9, 5, 100}, {.causal = false}, {}, true);
  }
}

TEST_P(Isa, AnEmptyBatchHasSinksGradientsOfZero) {
  Context context({.threads = 1, .isa = GetParam()});
  const std::vector<float> sinks{1.0f, -2.0f};
  std::vector<float> dsinks(2, 99.0f);
  attend_backward(context, {}, {.sinks = sinks}, dsinks);
  EXPECT_EQ(dsinks, std::vector<float>(2, 0.0f));
  attend_backward(context, {}, {});
}

}  // namespace
}  // namespace gqa
