#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "attention/plan.h"
#include "kernels/context.h"
#include "support/attention_case.h"

// Counts allocations, to show that a steady state makes none.
static std::atomic<int64_t> allocations{0};
[[gnu::noinline]] void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace gqa {
namespace {

using test::Array;
using test::draw;
using test::Problem;
using test::Random;
using test::Sizes;

/// How many random configurations; the environment may ask for more.
int configurations() {
  const char* wanted = std::getenv("GQA_TEST_CONFIGURATIONS");
  return wanted ? std::atoi(wanted) : 3000;
}

/// Every bit of outputs and LSE.
std::vector<std::byte> bits(const Problem& p) {
  std::vector<std::byte> all = p.out.memory;
  all.insert(all.end(), p.lse.memory.begin(), p.lse.memory.end());
  return all;
}

class Isa : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, Isa, ::testing::ValuesIn(available_isas()),
                         [](const auto& isa) { return isa.param; });

TEST_P(Isa, IsTheOneThatRuns) {
  Context context({.threads = 1, .isa = GetParam()});
  EXPECT_EQ(context.isa(), GetParam());
  EXPECT_EQ(context.impl().kernels->isa, GetParam());
}

TEST_P(Isa, EqualsTheOracleOnRandomConfigurations) {
  Context context({.threads = 2, .isa = GetParam()});
  Random random(20240917);  // the same configurations for every instruction set
  for (int done = 0; done < configurations();) {
    const AttendOptions options{.scale = draw(random, 0, 3) ? std::nullopt : std::optional(0.37f),
                                .mask = {.causal = draw(random, 0, 2) != 0}};
    std::vector<std::unique_ptr<Problem>> problems;
    std::vector<Sizes> sizes;
    std::vector<AttendItem> batch;
    for (int64_t n = draw(random, 1, 4); n-- > 0; ++done) {
      sizes.push_back(test::draw_sizes(random, 400'000));
      problems.push_back(std::make_unique<Problem>());
      test::fill_problem(random, *problems.back(), sizes.back());
      batch.push_back(problems.back()->item);
    }
    attend(context, batch, options);
    for (size_t i = 0; i < batch.size(); ++i) {
      ASSERT_TRUE(test::agrees(*problems[i], sizes[i], reference::attend(batch[i], options)))
          << "configuration " << done << ": " << test::describe(sizes[i]);
    }
  }
}

TEST_P(Isa, IsBitIdenticalForAnyThreadsBatchAndChunking) {
  Random random(7);
  for (int round = 0; round < 40; ++round) {
    const AttendOptions options{.mask = {.causal = round % 3 != 0}};
    Sizes s = test::draw_sizes(random, 4'000'000);
    if (round % 2) s.kv_len += 2000;  // several chunks
    Problem p;
    test::fill_problem(random, p, s);
    Context one({.threads = 1, .isa = GetParam()});
    attend(one, std::span(&p.item, 1), options);
    const auto expected = bits(p);

    for (int threads = 2; threads <= 8; ++threads) {
      Context many({.threads = threads, .isa = GetParam()});
      attend(many, std::span(&p.item, 1), options);
      ASSERT_EQ(bits(p), expected) << threads << " threads, " << test::describe(s);
    }
    // Token by token and in uneven pieces, all in one batch, in reverse order.
    const int64_t start = p.item.q_start.value_or(s.kv_len - s.q_len);
    for (const int64_t piece : {1, 3, 50}) {
      std::vector<AttendItem> batch;
      for (int64_t t = 0; t < s.q_len; t += piece) {
        const int64_t n = std::min(piece, s.q_len - t);
        AttendItem item = p.item;
        const auto shift = [&](const auto& view) {
          auto part = view;
          part.shape[0] = n;
          using Bytes =
              std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>,
                                 const std::byte, std::byte>;
          part.data =
              static_cast<Bytes*>(view.data) + t * view.strides[0] * dtype_bytes(view.dtype);
          return part;
        };
        item.q = shift(p.item.q);
        item.out = shift(p.item.out);
        item.lse = shift(p.item.lse);
        item.q_start = start + t;
        batch.insert(batch.begin(), item);
      }
      p.out.fill([] { return 99.0f; });
      attend(one, batch, options);
      ASSERT_EQ(bits(p), expected) << "pieces of " << piece << ", " << test::describe(s);
    }
  }
}

TEST_P(Isa, ACacheGivesTheSameAsItsContentInAStridedArray) {
  Random random(11);
  for (int round = 0; round < 60; ++round) {
    const Sizes s = test::draw_sizes(random, 2'000'000);
    if (s.kv_len == 0) continue;
    Context context({.threads = 2, .isa = GetParam()});
    const DType dtype = test::draw_dtype(random);
    KvCache cache({.kv_heads = {s.kv_heads},
                   .head_dim = s.head_dim,
                   .v_head_dim = s.v_head_dim,
                   .dtype = dtype});
    Problem p;
    test::fill_problem(random, p, s);
    p.pages.clear();
    p.k = Array<4>(random, dtype, {1, s.kv_len, s.kv_heads, s.head_dim}, false);
    p.v = Array<4>(random, dtype, {1, s.kv_len, s.kv_heads, s.v_head_dim}, false);
    test::fill_inputs(random, p);
    const auto tokens = [](const Array<4>& x, int64_t from, int64_t n) {
      AnyView<3> view(x.memory.data() + from * x.strides[1] * dtype_bytes(x.dtype), x.dtype,
                      {n, x.shape[2], x.shape[3]}, {x.strides[1], x.strides[2], x.strides[3]});
      return view;
    };
    for (int64_t at = 0; at < s.kv_len;) {
      const int64_t n = std::min(s.kv_len - at, draw(random, 1, 100));
      cache.append(context, 0, tokens(p.k, at, n), tokens(p.v, at, n));
      at += n;
    }
    p.item.kv = StridedKv{p.k.view(), p.v.view(), {}, 0, s.kv_len};
    p.item.q_start.reset();
    attend(context, std::span(&p.item, 1));
    const auto expected = bits(p);
    p.out.fill([] { return 99.0f; });
    AttendItem packed = p.item;
    packed.kv = cache.view(0);
    attend(context, std::span(&packed, 1));
    ASSERT_EQ(bits(p), expected) << test::describe(s);
  }
}

TEST_P(Isa, NanInAMaskedKeyNeverLeaksAndInAVisibleOneReachesItsRowsOnly) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Context context({.threads = 1, .isa = GetParam()});
  Random random(3);
  for (const bool in_value : {false, true}) {
    for (const int64_t bad : {0, 5, 63, 64, 90}) {
      const Sizes s{100, 6, 2, 24, 24, 100};
      Problem p;
      test::fill_problem(random, p, s);
      p.pages.clear();
      p.out = Array<3>(random, DType::f32, p.out.shape, true);
      p.k = Array<4>(random, DType::f32, {1, s.kv_len, s.kv_heads, s.head_dim}, true);
      p.v = Array<4>(random, DType::f32, {1, s.kv_len, s.kv_heads, s.v_head_dim}, true);
      test::fill_inputs(random, p);
      p.item = {p.q.view(), StridedKv{p.k.view(), p.v.view(), {}, 0, s.kv_len}, p.out.mut(),
                p.lse.mut(), std::nullopt};
      attend(context, std::span(&p.item, 1));
      const Problem clean = p;
      (in_value ? p.v : p.k).set({0, bad, 1, 7}, nan);  // KV head 1: query heads 3 to 5
      attend(context, std::span(&p.item, 1));
      for (int64_t t = 0; t < s.q_len; ++t) {
        for (int64_t h = 0; h < s.q_heads; ++h) {
          for (int64_t d = 0; d < s.v_head_dim; ++d) {
            const bool touched = t >= bad && h >= 3 && (!in_value || d == 7);
            const float got = p.out.get({t, h, d});
            if (touched) {
              ASSERT_TRUE(std::isnan(got)) << t << " " << h << " " << d << " bad " << bad;
            } else {
              ASSERT_EQ(got, clean.out.get({t, h, d}))
                  << t << " " << h << " " << d << " bad " << bad;
            }
          }
        }
      }
    }
  }
}

TEST_P(Isa, ARowThatSeesNoKeyGivesZeroAndMinusInfinity) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(5);
  for (const int64_t kv_len : {0, 3}) {
    const Sizes s{6, 4, 2, 9, 5, kv_len};
    Problem p;
    test::fill_problem(random, p, s);
    std::get<StridedKv>(p.item.kv).first_key = 0;
    p.item.q_start = -3;
    attend(context, std::span(&p.item, 1));
    for (int64_t t = 0; t < 6; ++t) {
      const bool sees = t >= 3 && kv_len > 0;
      for (int64_t h = 0; h < 4; ++h) {
        EXPECT_EQ(std::isinf(p.lse.get({t, h})), !sees);
        for (int64_t d = 0; d < 5; ++d) EXPECT_EQ(p.out.get({t, h, d}) != 0.0f, sees);
      }
    }
  }
}

TEST_P(Isa, ASteadyStateAllocatesNothing) {
  Context context({.threads = 3, .isa = GetParam()});
  Random random(9);
  Problem p;
  test::fill_problem(random, p, {4, 8, 2, 64, 64, 5000});
  attend(context, std::span(&p.item, 1));
  const int64_t before = allocations;
  for (int i = 0; i < 5; ++i) attend(context, std::span(&p.item, 1));
  EXPECT_EQ(allocations, before);
}

TEST(Attend, RefusesShapesThatDoNotFit) {
  Context context({.threads = 1});
  Random random(1);
  const auto refused = [&](auto&& spoil, const std::string& message) {
    Problem p;
    test::fill_problem(random, p, {2, 6, 2, 8, 8, 10});
    p.item.kv = StridedKv{Array<4>(random, DType::f32, {1, 10, 2, 8}, true).view(),
                          Array<4>(random, DType::f32, {1, 10, 2, 8}, true).view(),
                          {},
                          0,
                          10};
    spoil(p.item, std::get<StridedKv>(p.item.kv));
    try {
      attend(context, std::span(&p.item, 1));
      ADD_FAILURE() << "accepted: " << message;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      EXPECT_NE(std::string(e.what()).find("item 0: " + message), std::string::npos) << e.what();
    }
  };
  refused(
      [](auto& i, auto&) {
        i.q.shape[1] = 5;
        i.out.shape[1] = 5;
      },
      "5 query heads");
  refused([](auto& i, auto&) { i.q.shape[2] = 7; }, "q has head size 7");
  refused([](auto& i, auto&) { i.out.shape[0] = 3; }, "out has shape [3, 6, 8]");
  refused([](auto& i, auto&) { i.lse.shape[1] = 2; }, "lse has shape [2, 2]");
  refused([](auto&, auto& kv) { kv.len = 11; }, "11 keys do not fit 1 pages of 10");
  refused([](auto&, auto& kv) { kv.v.shape[2] = 1; }, "k has shape");
  refused([](auto&, auto& kv) { kv.first_key = 11; }, "first_key is 11");
  static const int32_t beyond[] = {1};
  refused([](auto&, auto& kv) { kv.pages = beyond; }, "page 1 of 1");
}

TEST(Plan, DecodingReadsEachKeyOncePerGroupAndPrefillOncePerTile) {
  // 32 query heads on 8 KV heads, one token, 10,000 keys: 8 groups x 10 chunks, no key twice.
  const ItemShape decode{1, 32, 8, 128, 128, 0, 10'000, 9'999};
  std::vector<Unit> units(1000);
  std::vector<MergeJob> merges(1000);
  const PlanSize size = plan(std::span(&decode, 1), {}, units.data(), merges.data());
  EXPECT_EQ(size.units, 8 * 10);
  EXPECT_EQ(size.merges, 8);
  // Under a causal mask no tile works on chunks behind its last token.
  const ItemShape prefill{4096, 8, 2, 64, 64, 0, 4096, 0};
  const PlanSize tiles = plan(std::span(&prefill, 1), {}, units.data(), merges.data());
  EXPECT_EQ(tiles.merges, 0);
  for (int64_t i = 0; i < tiles.units; ++i) {
    const Unit& unit = units[static_cast<size_t>(i)];
    EXPECT_EQ(unit.chunk_end, ceil_div(unit.t_end, chunk_keys));
  }
}

}  // namespace
}  // namespace gqa
