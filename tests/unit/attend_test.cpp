// attend() against the oracle.
#include <gtest/gtest.h>

#include <memory>

#include "gqa/error.h"
#include "kernels/context.h"
#include "support/attention_bound.h"
#include "support/attention_case.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::Array;
using test::draw;
using test::Problem;
using test::Random;
using test::Sizes;

TEST_P(Isa, IsTheOneThatRuns) {
  Context context({.threads = 1, .isa = GetParam()});
  EXPECT_EQ(context.isa(), GetParam());
  EXPECT_EQ(context.impl().kernels->isa, GetParam());
}

/// A batch of problems, all of one head count, with options that draw every feature.
struct Batch {
  test::Options options;
  std::vector<std::unique_ptr<Problem>> problems;
  std::vector<Sizes> sizes;
  std::vector<AttendItem> items;

  explicit Batch(Random& random) {
    const test::Heads heads = test::draw_heads(random);
    for (int64_t n = draw(random, 1, 4); n-- > 0;) {
      sizes.push_back(test::draw_sizes(random, 300'000, heads));
      problems.push_back(std::make_unique<Problem>());
      test::fill_problem(random, *problems.back(), sizes.back());
      items.push_back(problems.back()->item);
    }
    test::draw_options(random, heads, sizes.front().kv_len, options);
  }
};

TEST(Attend, EqualsTheOracleOnRandomConfigurationsOnEveryInstructionSet) {
  std::vector<std::unique_ptr<Context>> contexts;
  for (const std::string& isa : available_isas()) {
    contexts.push_back(std::make_unique<Context>(ContextOptions{.threads = 2, .isa = isa}));
  }
  Random random(20240917);
  for (int done = 0; done < test::rounds(10'000);) {
    Batch b(random);
    std::vector<reference::Result> expected;
    for (const AttendItem& item : b.items) {
      expected.push_back(reference::attend(item, b.options.options,
                                           test::sees(b.options.options.mask, item.prefix)));
    }
    for (const auto& context : contexts) {
      for (const auto& p : b.problems) p->out.fill([] { return 99.0f; });
      attend(*context, b.items, b.options.options);
      for (size_t i = 0; i < b.items.size(); ++i) {
        ASSERT_TRUE(test::agrees(*b.problems[i], b.sizes[i], b.options.options, expected[i]))
            << context->isa() << ", configuration " << done << ": "
            << test::describe(b.sizes[i], b.options, b.items[i]);
      }
    }
    done += static_cast<int>(b.items.size());
  }
}

/// One item with dense f32 arrays and no features.
Problem plain(Random& random, const Sizes& s) {
  Problem p;
  p.q = {random, DType::f32, {s.q_len, s.q_heads, s.head_dim}, true};
  p.k = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.head_dim}, true};
  p.v = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.v_head_dim}, true};
  p.out = {random, DType::f32, {s.q_len, s.q_heads, s.v_head_dim}, true};
  p.lse = {random, DType::f32, {s.q_len, s.q_heads}, true};
  test::fill_inputs(random, p);
  p.item = {.q = p.q.view(),
            .kv = StridedKv{p.k.view(), p.v.view(), {}, 0, s.kv_len},
            .out = p.out.mut(),
            .lse = p.lse.mut()};
  return p;
}

/// Rows at and behind `first_seeing` have outputs; those before give 0 and -inf.
void expect_nothing_before(const Problem& p, int64_t first_seeing) {
  for (int64_t t = 0; t < p.q.shape[0]; ++t) {
    for (int64_t h = 0; h < p.q.shape[1]; ++h) {
      const float lse = p.lse.get({t, h});
      EXPECT_EQ(lse == -std::numeric_limits<float>::infinity(), t < first_seeing) << t;
      for (int64_t d = 0; d < p.out.shape[2]; ++d) {
        EXPECT_EQ(p.out.get({t, h, d}) != 0.0f, t >= first_seeing) << t;
      }
    }
  }
}

TEST_P(Isa, ARowThatSeesNoKeyGivesZeroAndMinusInfinity) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(5);
  const std::vector<float> sinks{1.0f, -2.0f, 80.0f, 0.0f};
  for (const auto& with_sinks : {std::span<const float>(), std::span<const float>(sinks)}) {
    // Before the first key, without any key, behind the window.
    Problem p = plain(random, {6, 4, 2, 9, 5, 3});
    p.item.q_start = -3;
    attend(context, std::span(&p.item, 1), {.sinks = with_sinks});
    expect_nothing_before(p, 3);
    p = plain(random, {6, 4, 2, 9, 5, 0});
    attend(context, std::span(&p.item, 1), {.mask = {.causal = false}, .sinks = with_sinks});
    expect_nothing_before(p, 6);
    p = plain(random, {6, 4, 2, 9, 5, 100});
    p.item.q_start = 100 + 4;
    attend(context, std::span(&p.item, 1), {.mask = {.window = 5}, .sinks = with_sinks});
    expect_nothing_before(p, 6);
    // Masked by the bias alone.
    p = plain(random, {6, 4, 2, 9, 5, 100});
    p.bias = {random, DType::f16, {1, 6, 100}, false};
    int64_t i = 0;
    p.bias.fill([&] { return i++ < 400 ? -std::numeric_limits<float>::infinity() : 0.5f; });
    p.item.bias = p.bias.view();
    attend(context, std::span(&p.item, 1), {.mask = {.causal = false}, .sinks = with_sinks});
    expect_nothing_before(p, 4);
  }
}

TEST(Attend, RefusesWhatDoesNotFit) {
  Context context({.threads = 1});
  Random random(1);
  const auto refused = [&](auto&& spoil, const std::string& message) {
    Problem p = plain(random, {2, 6, 2, 8, 8, 10});
    AttendOptions options;
    spoil(p.item, std::get<StridedKv>(p.item.kv), options);
    try {
      attend(context, std::span(&p.item, 1), options);
      ADD_FAILURE() << "accepted: " << message;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  refused(
      [](auto& i, auto&, auto&) {
        i.q.shape[1] = 5;
        i.out.shape[1] = 5;
      },
      "item 0: 5 query heads");
  refused([](auto& i, auto&, auto&) { i.q.shape[2] = 7; }, "item 0: q has head size 7");
  refused([](auto& i, auto&, auto&) { i.out.shape[0] = 3; }, "item 0: out has shape [3, 6, 8]");
  refused([](auto& i, auto&, auto&) { i.lse.shape[1] = 2; }, "item 0: lse has shape [2, 2]");
  refused([](auto&, auto& kv, auto&) { kv.len = 11; }, "item 0: 11 keys do not fit 1 pages of 10");
  refused([](auto&, auto& kv, auto&) { kv.v.shape[2] = 1; }, "item 0: k has shape");
  refused([](auto&, auto& kv, auto&) { kv.first_key = 11; }, "item 0: first_key is 11");
  static const int32_t beyond[] = {1};
  refused([](auto&, auto& kv, auto&) { kv.pages = beyond; }, "item 0: page 1 of 1");
  refused([](auto& i, auto&, auto&) { i.prefix = -1; }, "item 0: prefix is -1");
  static const float numbers[20] = {};
  refused(
      [](auto& i, auto&, auto&) {
        i.bias = {numbers, DType::f32, {6, 2, 9}};
      },
      "item 0: bias has shape [6, 2, 9], expected [6, 2, 10]");
  refused([](auto&, auto&, auto& o) { o.alibi = std::span(numbers, 5); }, "item 0: alibi has 5");
  refused([](auto&, auto&, auto& o) { o.sinks = std::span(numbers, 7); }, "item 0: sinks has 7");
  static const float nan[] = {std::numeric_limits<float>::quiet_NaN()};
  refused([](auto&, auto&, auto& o) { o.sinks = nan; }, "a sink is nan");
  refused([](auto&, auto&, auto& o) { o.softcap = -1.0f; }, "softcap is -1");
  refused([](auto&, auto&, auto& o) { o.mask.window = -1; }, "window is -1");
  refused([](auto&, auto&, auto& o) { o.mask.block = INT64_MAX; }, "block is 9");
  refused([](auto&, auto&, auto& o) { o.mask.sink_tokens = -2; }, "sink_tokens is -2");
  for (const std::vector<int32_t>& offsets : std::vector<std::vector<int32_t>>{
           {0, 6}, {0, 2, 5}, {1, 2, 6}, {0, 6, 6}, {0, 3, 5, 6}, {0, 7, 6}}) {
    refused([&](auto&, auto&, auto& o) { o.group_offsets = offsets; }, "group_offsets are [");
  }
}

TEST(Attend, RefusesToSeeReleasedTokens) {
  Context context({.threads = 1});
  Random random(2);
  Problem p = plain(random, {1, 2, 2, 8, 8, 300});
  KvCache cache({.kv_heads = {2}, .head_dim = 8, .v_head_dim = 8});
  const int64_t sequence = cache.create();
  cache.append(context, sequence, 0, {p.k.memory.data(), DType::f32, {300, 2, 8}},
               {p.v.memory.data(), DType::f32, {300, 2, 8}});
  cache.release(sequence, 0, 64, 200);  // pages 1 and 2: tokens 64 to 191
  p.item.kv = cache.view(sequence, 0);
  for (const Mask& mask : {Mask{.window = 108}, Mask{.window = 50, .sink_tokens = 64}}) {
    EXPECT_NO_THROW(attend(context, std::span(&p.item, 1), {.mask = mask}));
  }
  for (const Mask& mask : {Mask{}, Mask{.window = 109}, Mask{.window = 50, .sink_tokens = 65}}) {
    try {
      attend(context, std::span(&p.item, 1), {.mask = mask});
      ADD_FAILURE() << "accepted a window of " << mask.window;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      EXPECT_NE(std::string(e.what()).find("the cache has released"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace gqa
