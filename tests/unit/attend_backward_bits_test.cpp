// What changes no bit of attend_backward()'s results.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <memory>

#include "support/backward_agrees.h"
#include "support/count_allocations.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::Array;
using test::BackwardBatch;
using test::BackwardProblem;
using test::draw;
using test::Random;

/// Contexts of 1 to 8 threads for an instruction set.
struct Threads {
  std::array<std::unique_ptr<Context>, 8> contexts;

  explicit Threads(const std::string& isa) {
    for (size_t i = 0; i < 8; ++i) {
      contexts[i] =
          std::make_unique<Context>(ContextOptions{.threads = static_cast<int>(i) + 1, .isa = isa});
    }
  }
  Context& with(int64_t threads) const { return *contexts[static_cast<size_t>(threads - 1)]; }
};

using Bits = std::vector<uint32_t>;

/// Of every gradient that was wanted, keys in their order, wherever they lie.
Bits bits(const BackwardProblem& p) {
  Bits all;
  const auto add = [&](float x) { all.push_back(std::bit_cast<uint32_t>(x)); };
  const auto& kv = std::get<StridedKv>(p.item.forward.kv);
  const auto of_keys = [&](const Array<4>& x) {
    test::visit_keys(kv, x.shape, [&](const auto& at, int64_t) { add(x.get(at)); });
  };
  if (p.item.dq.data) p.dq.for_each(add);
  if (p.item.dk.data) of_keys(p.dk);
  if (p.item.dv.data) of_keys(p.dv);
  if (p.item.dbias.data) p.dbias.for_each(add);
  return all;
}

/// Of some problems' gradients, one after the other, and of dsinks.
struct Outcome {
  std::vector<Bits> items;
  std::vector<uint32_t> dsinks;
  bool operator==(const Outcome&) const = default;
};
Outcome run(Context& context, const BackwardBatch& b, const std::vector<size_t>& which) {
  std::vector<AttendBackwardItem> items;
  for (const size_t i : which) {
    b.problems[i]->forget_gradients();
    items.push_back(b.problems[i]->item);
  }
  std::vector<float> dsinks(b.dsinks.size(), 99.0f);
  attend_backward(context, items, b.options.options, dsinks);
  Outcome result;
  for (const size_t i : which) result.items.push_back(bits(*b.problems[i]));
  for (const float x : dsinks) result.dsinks.push_back(std::bit_cast<uint32_t>(x));
  return result;
}

TEST_P(Isa, ThreadsAndBatchesChangeNone) {
  const Threads isa(GetParam());
  Random random(7);
  for (int round = 0; round < test::rounds(400); ++round) {
    BackwardBatch b(random, round % 20 == 0 ? 1'000'000 : 100'000);
    attend(isa.with(1), b.forward_items(), b.options.options);
    std::vector<size_t> all(b.problems.size());
    std::iota(all.begin(), all.end(), size_t{0});
    const Outcome expected = run(isa.with(1), b, all);
    const auto what = [&] {
      return "round " + std::to_string(round) + ": " +
             test::describe(b.sizes[0], b.options, b.problems[0]->item.forward);
    };
    const int64_t threads = draw(random, 2, 8);
    ASSERT_EQ(run(isa.with(threads), b, all), expected) << threads << " threads, " << what();
    for (const size_t i : all) {
      ASSERT_EQ(run(isa.with(1), b, {i}).items[0], expected.items[i]) << "alone, " << what();
    }
    std::shuffle(all.begin(), all.end(), random);
    const Outcome shuffled = run(isa.with(threads), b, all);
    for (size_t n = 0; n < all.size(); ++n) {
      ASSERT_EQ(shuffled.items[n], expected.items[all[n]]) << "in another order, " << what();
    }
  }
}

/// Every number of threads, where there is work for all of them.
TEST_P(Isa, EveryNumberOfThreadsGivesTheSame) {
  const Threads isa(GetParam());
  Random random(8);
  for (int round = 0; round < 3; ++round) {
    BackwardBatch b(random, 1000);
    b.sizes.front() = {.q_len = 150,
                       .q_heads = b.sizes.front().q_heads,
                       .kv_heads = b.sizes.front().kv_heads,
                       .head_dim = 12,
                       .v_head_dim = 9,
                       .kv_len = round == 0 ? 2500 : 400};
    b.problems.front() = std::make_unique<BackwardProblem>();
    test::fill_backward(random, *b.problems.front(), b.sizes.front());
    b.options.options.mask = {.causal = round != 1};
    attend(isa.with(1), b.forward_items(), b.options.options);
    const Outcome expected = run(isa.with(1), b, {0});
    for (int64_t threads = 2; threads <= 8; ++threads) {
      ASSERT_EQ(run(isa.with(threads), b, {0}), expected) << threads << " threads";
    }
  }
}

/// Sums over heads, tokens and keys that are many threads' work.
TEST_P(Isa, ABiasThatManyScoresShareGetsTheSameSums) {
  const Threads isa(GetParam());
  Random random(9);
  const test::Sizes s{
      .q_len = 150, .q_heads = 4, .kv_heads = 2, .head_dim = 12, .v_head_dim = 9, .kv_len = 2100};
  for (const std::array<int64_t, 3>& shape : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {4, 1, 1}, {1, 150, 1}, {4, 150, 1}, {1, 1, 2100}, {4, 1, 2100}}) {
    BackwardBatch b(random, 1000);
    b.problems.front() = std::make_unique<BackwardProblem>();
    BackwardProblem& p = *b.problems.front();
    test::fill_backward(random, p, s);
    p.forward.bias = {random, DType::f32, shape, true};
    p.forward.bias.fill([] { return 0.25f; });
    p.item.forward.bias = p.forward.bias.view();
    p.dbias = {random, test::pick(random, {DType::f32, DType::bf16}), shape, false};
    p.item.dbias = p.dbias.mut();
    p.item.forward.selected = {};
    attend(isa.with(1), std::span(&p.item.forward, 1), {});
    const auto run_with = [&](int64_t threads) {
      p.forget_gradients();
      attend_backward(isa.with(threads), std::span(&p.item, 1), {});
      return bits(p);
    };
    const Bits expected = run_with(1);
    for (const int64_t threads : {2, 5, 8}) {
      ASSERT_EQ(run_with(threads), expected) << threads << " threads";
    }
  }
}

/// The same numbers with other strides.
template <int N>
Array<N> moved(Random& random, const Array<N>& x) {
  Array<N> to(random, x.dtype, x.shape, draw(random, 0, 3) == 0);
  x.visit([&](const auto& at) { to.set(at, x.get(at)); });
  return to;
}

/// The same keys in pages of another size, in another order, and with other strides.
Array<4> repaged(Random& random, const StridedKv& from, const Array<4>& x, const StridedKv& to) {
  Array<4> result(random, x.dtype, {to.k.shape[0], to.k.shape[1], x.shape[2], x.shape[3]},
                  draw(random, 0, 3) == 0);
  std::vector<float> values;
  test::visit_keys(from, x.shape, [&](const auto& at, int64_t) { values.push_back(x.get(at)); });
  size_t i = 0;
  test::visit_keys(to, result.shape, [&](const auto& at, int64_t) { result.set(at, values[i++]); });
  return result;
}

/// The same problem, all of its arrays elsewhere.
std::unique_ptr<BackwardProblem> elsewhere(Random& random, const BackwardProblem& p) {
  auto to = std::make_unique<BackwardProblem>();
  to->item = p.item;
  AttendItem& item = to->item.forward;
  auto& kv = std::get<StridedKv>(item.kv);
  const StridedKv from = kv;
  const auto page_size = test::pick<int64_t>(random, {1, 5, 16, 64, 100, kv.len + 1});
  const int64_t logical = ceil_div(kv.len, page_size);
  auto& pages = to->forward.pages;
  pages.resize(static_cast<size_t>(logical + draw(random, 0, 3)));
  kv.k.shape[0] = std::ssize(pages);
  kv.k.shape[1] = page_size;
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), random);
  pages.resize(static_cast<size_t>(logical));
  kv.pages = pages;
  to->forward.k = repaged(random, from, p.forward.k, kv);
  to->forward.v = repaged(random, from, p.forward.v, kv);
  to->dk = repaged(random, from, p.dk, kv);
  to->dv = repaged(random, from, p.dv, kv);
  kv.k = to->forward.k.view();
  kv.v = to->forward.v.view();
  const auto move = [&](auto& array, const auto& of, auto& view) {
    array = moved(random, of);
    if (!view.data) return;
    if constexpr (requires { view = array.mut(); }) {
      view = array.mut();
    } else {
      view = array.view();
    }
  };
  move(to->forward.q, p.forward.q, item.q);
  move(to->forward.out, p.forward.out, item.out);
  move(to->forward.lse, p.forward.lse, item.lse);
  move(to->d_out, p.d_out, to->item.d_out);
  move(to->dq, p.dq, to->item.dq);
  if (item.bias.data) {
    move(to->forward.bias, p.forward.bias, item.bias);
    move(to->dbias, p.dbias, to->item.dbias);
  }
  if (to->item.dk.data) to->item.dk = to->dk.mut();
  if (to->item.dv.data) to->item.dv = to->dv.mut();
  return to;
}

TEST_P(Isa, WhereArraysLieChangesNone) {
  Context context({.threads = 2, .isa = GetParam()});
  Random random(11);
  for (int round = 0; round < test::rounds(400); ++round) {
    BackwardBatch b(random, round % 50 == 0 ? 1'000'000 : 60'000);
    attend(context, b.forward_items(), b.options.options);
    const Outcome expected = run(context, b, {0});
    const auto kept = std::move(b.problems[0]);  // of the selection's memory
    b.problems[0] = elsewhere(random, *kept);
    ASSERT_EQ(run(context, b, {0}), expected)
        << "round " << round << ": " << test::describe(b.sizes[0], b.options, kept->item.forward);
  }
}

TEST_P(Isa, ASteadyStateAllocatesNothing) {
  Context context({.threads = 3, .isa = GetParam()});
  Random random(9);
  const BackwardBatch b(random, 200'000);
  attend(context, b.forward_items(), b.options.options);
  const auto items = b.items();
  std::vector<float> dsinks(b.options.sinks.size());
  attend_backward(context, items, b.options.options, dsinks);
  EXPECT_EQ(0, test::count_allocations([&] {
              for (int i = 0; i < 5; ++i) {
                attend_backward(context, items, b.options.options, dsinks);
              }
            }));
}

}  // namespace
}  // namespace gqa
