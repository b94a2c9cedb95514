// What a mask hides stays hidden, and costs nothing.
#include <gtest/gtest.h>

#include <cmath>

#include "attention/plan.h"
#include "attention/visible.h"
#include "support/attention_case.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::Array;
using test::draw;
using test::Problem;
using test::Random;
using test::Sizes;

TEST(VisibleKeys, AreWhatThePlainFormulaSaysAndTheirEndsNeverFall) {
  Random random(13);
  for (int round = 0; round < test::rounds(20'000); ++round) {
    const int64_t len = draw(random, 0, 300);
    const Mask mask = test::draw_mask(random, len);
    const SequenceKeys keys{draw(random, 0, 1) ? 0 : draw(random, 0, len), len,
                            draw(random, 0, 2) ? 0 : draw(random, 0, len + 5)};
    const auto sees = test::sees(mask, keys.prefix);
    const int64_t position = draw(random, -20, len + 20);
    const VisibleKeys seen = visible_keys(mask, position, keys);
    for (int64_t s = 0; s < len; ++s) {
      const auto in = [&](const KeyRange& run) { return s >= run.begin && s < run.end; };
      ASSERT_EQ(in(seen[0]) || in(seen[1]), s >= keys.first && sees(position, s))
          << "position " << position << ", key " << s << " of " << len;
    }
    const VisibleKeys next = visible_keys(mask, position + 1, keys);
    for (size_t i = 0; i < seen.size(); ++i) {
      ASSERT_LE(seen[i].begin, seen[i].end);
      ASSERT_LE(seen[i].begin, next[i].begin);
      ASSERT_LE(seen[i].end, next[i].end);
      ASSERT_TRUE(seen[i].begin >= keys.first && seen[i].end <= len);
    }
    ASSERT_LE(seen[0].end, seen[1].begin);
    uint64_t expected = 0;
    const int64_t first = draw(random, 0, 4) * 64;
    for (int64_t s = 0; s < 64 && first + s < len; ++s) {
      if (first + s >= keys.first && sees(position, first + s)) expected |= uint64_t{1} << s;
    }
    ASSERT_EQ(block_bits(seen, first), expected);
  }
}

/// One key or value of KV head 1 becomes NaN: query heads that read it and rows that see it turn
/// NaN, all others keep every bit.
TEST_P(Isa, NanReachesTheRowsThatSeeItAndNoOthers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Context context({.threads = 1, .isa = GetParam()});
  Random random(3);
  for (int round = 0; round < test::rounds(60); ++round) {
    const test::Heads heads = test::draw_heads(random);
    const Sizes s{draw(random, 1, 100), heads.q_heads, heads.kv_heads, 24, 24, 200};
    test::Options o;
    test::draw_options(random, heads, s.kv_len, o);
    Problem p;
    test::fill_problem(random, p, s);
    p.pages.clear();
    p.out = {random, DType::f32, p.out.shape, true};
    p.k = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.head_dim}, true};
    p.v = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.v_head_dim}, true};
    test::fill_inputs(random, p);
    p.item.kv = StridedKv{p.k.view(), p.v.view(), {}, 0, s.kv_len};
    p.item.out = p.out.mut();
    attend(context, std::span(&p.item, 1), o.options);
    const Array<3> clean = p.out;
    const bool in_value = round % 2 == 0;
    const int64_t bad = test::pick<int64_t>(random, {0, 5, 63, 64, 120, 199});
    const int64_t kv_head = draw(random, 0, s.kv_heads - 1);
    (in_value ? p.v : p.k).set({0, bad, kv_head, 7}, nan);
    attend(context, std::span(&p.item, 1), o.options);
    const auto sees = test::sees(o.options.mask, p.item.prefix);
    const ItemShape shape{.q_heads = s.q_heads,
                          .kv_heads = s.kv_heads,
                          .keys = {},
                          .group_offsets = o.options.group_offsets};
    const int64_t start = p.item.q_start.value_or(s.kv_len - s.q_len);
    for (int64_t t = 0; t < s.q_len; ++t) {
      for (int64_t h = 0; h < s.q_heads; ++h) {
        const auto bias_at = [&](size_t axis, int64_t i) {
          return p.bias.shape[axis] == 1 ? 0 : i;
        };
        const bool masked = p.item.bias.data &&
                            std::isinf(p.bias.get({bias_at(0, h), bias_at(1, t), bias_at(2, bad)}));
        const bool reads = h >= shape.first_head(kv_head) && h < shape.first_head(kv_head + 1) &&
                           test::is_selected(p.item, t, kv_head, bad);
        for (int64_t d = 0; d < s.v_head_dim; ++d) {
          const bool touched = reads && sees(start + t, bad) && !masked && (!in_value || d == 7);
          const float got = p.out.get({t, h, d});
          if (touched) {
            ASSERT_TRUE(std::isnan(got)) << t << " " << h << " " << d << " bad " << bad << ", "
                                         << test::describe(s, o, p.item);
          } else {
            ASSERT_EQ(got, clean.get({t, h, d})) << t << " " << h << " " << d << " bad " << bad
                                                 << ", " << test::describe(s, o, p.item);
          }
        }
      }
    }
  }
}

TEST(Plan, DecodingReadsEachKeyOncePerGroupAndPrefillOncePerTile) {
  // 32 query heads on 8 KV heads, one token, 10,000 keys: 8 groups x 10 chunks, no key twice.
  const ItemShape decode{.q_len = 1,
                         .q_heads = 32,
                         .kv_heads = 8,
                         .head_dim = 128,
                         .v_head_dim = 128,
                         .q_start = 9'999,
                         .keys = {.len = 10'000},
                         .group_offsets = {}};
  std::vector<Unit> units(1000);
  std::vector<MergeJob> merges(1000);
  const PlanSize size = plan(std::span(&decode, 1), {}, units.data(), merges.data());
  EXPECT_EQ(size.units, 8 * 10);
  EXPECT_EQ(size.merges, 8);
  // Under a window, only the chunks that it touches: of keys 7,000 to 9,999 chunks 6 to 9; and the
  // one with the sink tokens.
  EXPECT_EQ(plan(std::span(&decode, 1), {.window = 3000}, nullptr, nullptr).units, 8 * 4);
  const Mask streaming{.window = 3000, .sink_tokens = 4};
  EXPECT_EQ(plan(std::span(&decode, 1), streaming, nullptr, nullptr).units, 8 * 5);
  // Under a causal mask no tile works on chunks behind its last token.
  ItemShape prefill = decode;
  prefill.q_len = prefill.keys.len = 4096;
  prefill.q_start = 0;
  prefill.q_heads = 8;
  prefill.kv_heads = 2;
  const PlanSize tiles = plan(std::span(&prefill, 1), {}, units.data(), merges.data());
  EXPECT_EQ(tiles.merges, 0);
  for (int64_t i = 0; i < tiles.units; ++i) {
    const Unit& unit = units[static_cast<size_t>(i)];
    EXPECT_EQ(unit.chunk_end, ceil_div(unit.t_end, chunk_keys));
  }
}

TEST(Plan, WorkFollowsWhatIsVisible) {
  const int64_t n = 32'768;
  const ItemShape shape{.q_len = n,
                        .q_heads = 32,
                        .kv_heads = 8,
                        .head_dim = 128,
                        .v_head_dim = 128,
                        .q_start = 0,
                        .keys = {.len = n},
                        .group_offsets = {}};
  const std::vector<Mask> masks{{.window = 4096},
                                {.window = 4096, .sink_tokens = 64},
                                {.block = 2048},
                                {.causal = false, .block = 2048},
                                {.causal = false, .window = 4096},
                                {}};
  for (const Mask& mask : masks) {
    double visible = 0;
    for (int64_t t = 0; t < n; ++t) {
      for (const KeyRange& run : visible_keys(mask, t, shape.keys)) {
        visible += static_cast<double>(run.end - run.begin);
      }
    }
    const double computed = plan(std::span(&shape, 1), mask, nullptr, nullptr).scores;
    EXPECT_GE(computed, 32 * visible);
    EXPECT_LE(computed, 1.10 * 32 * visible) << mask.window << " " << mask.block;
  }
}

}  // namespace
}  // namespace gqa
