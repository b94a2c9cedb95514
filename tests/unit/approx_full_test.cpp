// With a full budget every variant is exact attention; masks are masks.
#include <gtest/gtest.h>

#include "gqa/approx.h"
#include "kernels/context.h"
#include "reference/attention.h"
#include "support/approx_case.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::draw;
using test::pick;
using test::Problem;
using test::Random;
using test::Sizes;

std::vector<AttentionSpec> full_budgets(Random& random, const Sizes& s) {
  const int64_t pages = (s.kv_len + 63) / 64;
  const int64_t far_pages = std::max<int64_t>(1, (s.kv_len - 1) / 128 * 2);
  const int64_t rank = draw(random, 1, s.head_dim);
  return {TopPages{pages},
          TopPages{pages + 7},
          TopMass{1},
          LowRank{rank},
          LowRank{rank, s.kv_len},
          LowRank{s.head_dim, s.kv_len + 3},
          LowRank{s.head_dim},
          GlobalLocal{s.kv_len, draw(random, 1, 200)},
          GlobalLocal{draw(random, 1, 200), 1},
          Clustered{128, 0},
          Clustered{128, 2},
          Clustered{draw(random, 1, 127), far_pages},
          DynamicGroups{0}};
}

/// Sizes of which the oracle takes at most about `budget` multiply-adds.
Sizes draw_sizes(Random& random, const test::Heads& heads, int64_t budget, bool whole) {
  while (true) {
    Sizes s{};
    s.q_heads = heads.q_heads;
    s.kv_heads = heads.kv_heads;
    s.head_dim = pick<int64_t>(random, {draw(random, 1, 40), 16, 24, 64, 80});
    s.v_head_dim = draw(random, 0, 1) ? s.head_dim : draw(random, 1, 70);
    s.kv_len = whole ? draw(random, 257, 600) : draw(random, 1, 900);
    s.q_len = whole ? s.kv_len : std::min(s.kv_len, pick<int64_t>(random, {1, 2, 5, 17, 150}));
    if (s.q_len * s.q_heads * s.kv_len * (s.head_dim + s.v_head_dim) <= budget) return s;
  }
}

/// A random sequence in a cache, and what an approximation of it should be.
struct Drawn {
  test::Heads heads;
  Sizes s;
  Problem p;
  KvDType dtype;
  AttendOptions options;

  Drawn(Random& random, Context& context, bool whole, std::optional<KvCache>& cache)
      : heads(test::draw_heads(random)), s(draw_sizes(random, heads, 4'000'000, whole)) {
    dtype = pick(random, {KvDType::f32, KvDType::f16, KvDType::bf16, KvDType::int8, KvDType::int4});
    test::fill_dense(random, p, s);
    p.out = {random, test::draw_dtype(random), p.out.shape, draw(random, 0, 1) == 0};
    p.item = {.q = p.q.view(), .kv = {}, .out = p.out.mut()};
    cache.emplace(test::cache_of(context, p, dtype));
    test::read_back(*cache, p, s.kv_len);
    if (draw(random, 0, 3) == 0) options.scale = 0.37f;
    options.group_offsets = heads.group_offsets;
  }
  void attend(Context& context, const KvCache& cache, const AttentionSpec& spec,
              int64_t window = 0) {
    Approximation approximation(spec, cache.shape());
    const Approximation::Item item{0, p.q.view(), p.out.mut()};
    p.out.fill([] { return 99.0f; });
    approximation.attend(
        context, cache, 0, std::span(&item, 1),
        {.scale = options.scale, .window = window, .group_offsets = options.group_offsets});
  }
  test::Rounded rounded(Context& context) const {
    const bool stored = context.impl().kernels->takes_stored(dtype);
    return stored ? test::rounding_of(dtype, p, s, options) : test::Rounded{};
  }
};

TEST_P(Isa, AFullBudgetIsExactAttention) {
  Context context({.threads = 2, .isa = GetParam()});
  Random random(71);
  const int rounds = test::rounds(60);
  for (int round = 0; round < rounds; ++round) {
    std::optional<KvCache> cache;
    Drawn drawn(random, context, round % 8 == 7, cache);
    const Mask causal;
    const auto expected = reference::attend(drawn.p.item, drawn.options, test::sees(causal, 0));
    for (const AttentionSpec& spec : full_budgets(random, drawn.s)) {
      drawn.attend(context, *cache, spec);
      ASSERT_TRUE(
          test::close(drawn.p.out, drawn.s, drawn.options, expected, drawn.rounded(context)))
          << attention_text(spec) << ", " << kv_dtype_name(drawn.dtype) << ", "
          << test::describe(drawn.s);
    }
  }
}

TEST_P(Isa, BlocksAndWindowsAreMasks) {
  Context context({.threads = 2, .isa = GetParam()});
  Random random(72);
  const int rounds = test::rounds(60);
  for (int round = 0; round < rounds; ++round) {
    std::optional<KvCache> cache;
    Drawn drawn(random, context, round % 8 == 7, cache);
    const int64_t size = pick<int64_t>(random, {1, 7, 64, 100, 128, draw(random, 1, 950)});
    const int64_t window = draw(random, 0, 1) ? 0 : draw(random, 1, 300);
    const auto sees = [&](bool block, bool sliding) {
      return [=](int64_t p, int64_t s) {
        return s <= p && (!block || p / size == s / size) && (!sliding || p - s < size) &&
               (window == 0 || p - s < window);
      };
    };
    const auto check = [&](const AttentionSpec& spec, const reference::Sees& seen) {
      drawn.attend(context, *cache, spec, window);
      const auto expected = reference::attend(drawn.p.item, drawn.options, seen);
      return test::close(drawn.p.out, drawn.s, drawn.options, expected, drawn.rounded(context));
    };
    ASSERT_TRUE(check(ExactAttention{}, sees(false, false))) << test::describe(drawn.s);
    ASSERT_TRUE(check(BlockLocal{size}, sees(true, false))) << size;
    ASSERT_TRUE(check(SlidingWindow{size}, sees(false, true))) << size;
  }
}

}  // namespace
}  // namespace gqa
