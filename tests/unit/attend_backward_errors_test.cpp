// What the backward refuses, and what it keeps from spreading.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "gqa/error.h"
#include "support/backward_agrees.h"
#include "support/each_isa.h"
#include "support/expect_error.h"

namespace gqa {
namespace {

using test::Array;
using test::BackwardProblem;
using test::draw;
using test::Random;
using test::Sizes;

/// One item with dense f32 arrays, all gradients wanted, and no features.
void fill_plain(Random& random, BackwardProblem& p, const Sizes& s) {
  auto& f = p.forward;
  f.q = {random, DType::f32, {s.q_len, s.q_heads, s.head_dim}, true};
  f.k = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.head_dim}, true};
  f.v = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.v_head_dim}, true};
  f.out = {random, DType::f32, {s.q_len, s.q_heads, s.v_head_dim}, true};
  f.lse = {random, DType::f32, {s.q_len, s.q_heads}, true};
  test::fill_inputs(random, f);
  p.d_out = f.out;
  p.d_out.fill([] { return 1.0f; });
  p.dq = f.q;
  p.dk = f.k;
  p.dv = f.v;
  p.item.forward = {.q = f.q.view(),
                    .kv = StridedKv{f.k.view(), f.v.view(), {}, 0, s.kv_len},
                    .out = f.out.mut(),
                    .lse = f.lse.mut()};
  p.item.d_out = p.d_out.view();
  p.item.dq = p.dq.mut();
  p.item.dk = p.dk.mut();
  p.item.dv = p.dv.mut();
}

using Spoil = std::function<void(AttendBackwardItem&, StridedKv&, AttendOptions&)>;

/// The second of two items is spoiled.
void expect_refusal(const Spoil& spoil, std::initializer_list<std::string_view> words,
                    std::span<float> dsinks = {}) {
  Context context({.threads = 1});
  Random random(1);
  BackwardProblem good, bad;
  fill_plain(random, good, {2, 6, 2, 8, 5, 10});
  fill_plain(random, bad, {2, 6, 2, 8, 5, 10});
  AttendOptions options;
  spoil(bad.item, std::get<StridedKv>(bad.item.forward.kv), options);
  const std::vector<AttendBackwardItem> batch{good.item, bad.item};
  const auto message = test::expect_error(
      ErrorKind::usage, words, [&] { attend_backward(context, batch, options, dsinks); });
  EXPECT_EQ(message.find("attend_backward: "), 0U) << message;
}

TEST(AttendBackward, RefusesWhatDoesNotFit) {
  expect_refusal([](auto& i, auto&, auto&) { i.forward.lse = {}; }, {"item 1", "lse"});
  expect_refusal([](auto& i, auto&, auto&) { i.forward.lse.shape[1] = 2; },
                 {"item 1", "lse has shape [2, 2]", "[2, 6]"});
  expect_refusal([](auto& i, auto&, auto&) { i.forward.lse.dtype = DType::f16; },
                 {"item 1", "lse", "f16", "f32"});
  expect_refusal([](auto& i, auto&, auto&) { i.forward.q.shape[2] = 7; }, {"item 1", "q", "7"});
  expect_refusal([](auto& i, auto&, auto&) { i.forward.out.shape[0] = 3; },
                 {"item 1", "out has shape [3, 6, 5]", "[2, 6, 5]"});
  expect_refusal([](auto& i, auto&, auto&) { i.forward.out.data = nullptr; }, {"item 1", "out"});
  expect_refusal([](auto& i, auto&, auto&) { i.d_out.data = nullptr; }, {"item 1", "d_out"});
  expect_refusal([](auto& i, auto&, auto&) { i.d_out.shape[2] = 8; },
                 {"item 1", "d_out has shape [2, 6, 8]", "[2, 6, 5]"});
  expect_refusal([](auto& i, auto&, auto&) { i.dq.shape[0] = 1; },
                 {"item 1", "dq has shape [1, 6, 8]", "[2, 6, 8]"});
  expect_refusal([](auto& i, auto&, auto&) { i.dk.shape[3] = 5; },
                 {"item 1", "dk has shape [1, 10, 2, 5]", "[1, 10, 2, 8]"});
  expect_refusal([](auto& i, auto&, auto&) { i.dv.shape[1] = 9; },
                 {"item 1", "dv has shape [1, 9, 2, 5]", "[1, 10, 2, 5]"});
  static float numbers[2000] = {};
  expect_refusal(
      [](auto& i, auto&, auto&) {
        i.dbias = {numbers, DType::f32, {6, 2, 10}};
      },
      {"item 1", "dbias", "bias"});
  expect_refusal(
      [](auto& i, auto&, auto&) {
        i.forward.bias = {numbers, DType::f32, {6, 1, 10}};
        i.dbias = {numbers, DType::f32, {6, 2, 10}};
      },
      {"item 1", "dbias has shape [6, 2, 10]", "[6, 1, 10]"});
  expect_refusal([](auto&, auto&, auto& o) { o.softcap = -1.0f; }, {"softcap is -1"});
}

TEST(AttendBackward, RefusesSinksGradientsThatDoNotFit) {
  static const float sinks[6] = {};
  static float dsinks[6] = {};
  expect_refusal([](auto&, auto&, auto& o) { o.sinks = sinks; }, {"dsinks has 5", "6"},
                 std::span(dsinks, 5));
  expect_refusal([](auto&, auto&, auto&) {}, {"attend_backward: dsinks", "sinks"}, dsinks);
}

TEST(AttendBackward, RefusesAPageTwice) {
  static const std::vector<int32_t> pages{4, 1, 2, 1};
  const auto page = [](auto& i, auto& kv) {
    static float numbers[600] = {};
    kv.k = {numbers, DType::f32, {5, 3, 2, 8}};
    kv.v = {numbers, DType::f32, {5, 3, 2, 5}};
    i.dk = {numbers, DType::f32, {5, 3, 2, 8}};
    i.dv = {numbers, DType::f32, {5, 3, 2, 5}};
    kv.pages = pages;
  };
  expect_refusal([&](auto& i, auto& kv, auto&) { page(i, kv); }, {"item 1", "page 1", "twice"});
  // Pages whose keys are gone, or behind the last, may be anything.
  Context context({.threads = 1});
  Random random(1);
  for (const bool gone : {true, false}) {
    BackwardProblem p;
    fill_plain(random, p, {2, 6, 2, 8, 5, 10});
    auto& kv = std::get<StridedKv>(p.item.forward.kv);
    page(p.item, kv);
    if (gone) {
      kv.first_key = 6;
    } else {
      kv.len = 9;
    }
    attend(context, std::span(&p.item.forward, 1), {});
    EXPECT_NO_THROW(attend_backward(context, std::span(&p.item, 1), {}));
  }
}

TEST(AttendBackward, RefusesACache) {
  KvCache cache({.kv_heads = {2}, .head_dim = 8, .v_head_dim = 5});
  Context context({.threads = 1});
  const int64_t sequence = cache.create();
  static float numbers[200] = {};
  cache.append(context, sequence, 0, {numbers, DType::f32, {10, 2, 8}},
               {numbers, DType::f32, {10, 2, 5}});
  expect_refusal([&](auto& i, auto&, auto&) { i.forward.kv = cache.view(sequence, 0); },
                 {"item 1", "expected strided arrays"});
}

/// One key or value of a KV head becomes NaN: rows that see it have gradients of NaN; all others,
/// and keys that only others see, keep every bit. A key that becomes infinite does the same, but
/// where it takes its own weight away only its own element is sure to show: 0 times infinity.
TEST_P(Isa, NanReachesTheRowsThatSeeItAndNoOthers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  Context context({.threads = 1, .isa = GetParam()});
  Random random(3);
  for (int round = 0; round < test::rounds(100); ++round) {
    const test::Heads heads = test::draw_heads(random);
    const Sizes s{draw(random, 1, 60), heads.q_heads, heads.kv_heads, 11, 13, 200};
    test::Options o;
    test::draw_options(random, heads, s.kv_len, o);
    BackwardProblem p;
    fill_plain(random, p, s);
    if (draw(random, 0, 1)) test::fill_selection(random, p.forward, s);
    if (draw(random, 0, 1)) test::fill_bias(random, p.forward, s);
    p.item.forward.selected = p.forward.item.selected;
    p.item.forward.bias = p.forward.item.bias;
    const auto run = [&] {
      attend(context, std::span(&p.item.forward, 1), o.options);
      attend_backward(context, std::span(&p.item, 1), o.options);
    };
    run();
    const auto clean_dq = p.dq;
    const auto clean_dk = p.dk, clean_dv = p.dv;
    const auto pairs =
        reference::attend_backward(p.item, o.options, test::sees(o.options.mask, 0)).pairs;
    const auto bad = test::pick<int64_t>(random, {0, 5, 63, 64, 120, 199});
    const int64_t kv_head = draw(random, 0, s.kv_heads - 1);
    const bool infinite = round % 3 == 2;
    (round % 3 == 0 ? p.forward.v : p.forward.k)
        .set({0, bad, kv_head, 7}, infinite ? infinity : nan);
    run();
    std::set<std::pair<int64_t, int64_t>> rows, keys;  // that see it; that such rows see
    for (const auto& x : pairs) {
      if (x.kv_head == kv_head && x.key == bad) rows.insert({x.t, x.h});
    }
    for (const auto& x : pairs) {
      if (rows.contains({x.t, x.h})) keys.insert({x.key, x.kv_head});
    }
    const auto what = test::describe(s, o, p.item.forward) + ", key " + std::to_string(bad);
    p.dq.visit([&](const auto& at) {
      if (rows.contains({at[0], at[1]})) {
        if (infinite && (at[2] != 7 || p.forward.lse.get({at[0], at[1]}) == -infinity)) return;
        ASSERT_TRUE(std::isnan(p.dq.get(at))) << "dq " << at[0] << " " << at[1] << ", " << what;
      } else {
        ASSERT_EQ(p.dq.get(at), clean_dq.get(at)) << "dq " << at[0] << " " << at[1] << ", " << what;
      }
    });
    const auto expect_clean = [&](const Array<4>& x, const Array<4>& clean, const char* name) {
      x.visit([&](const auto& at) {
        if (keys.contains({at[1], at[2]})) return;
        ASSERT_EQ(x.get(at), clean.get(at)) << name << " " << at[1] << " " << at[2] << ", " << what;
      });
    };
    expect_clean(p.dk, clean_dk, "dk");
    expect_clean(p.dv, clean_dv, "dv");
    ASSERT_FALSE(HasFatalFailure());
  }
}

}  // namespace
}  // namespace gqa
