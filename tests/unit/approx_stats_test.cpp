// What approximations count, and what they refuse.
#include <gtest/gtest.h>

#include "gqa/approx.h"
#include "support/approx_case.h"
#include "support/approx_directions.h"
#include "support/expect_error.h"

namespace gqa {
namespace {

using test::expect_error;
using test::Heads;
using test::Random;
using test::Tokens;

const Heads heads{4, 2, {}};

/// After a prompt of `len` tokens, in calls of `chunk`.
ApproxStats stats_of(const AttentionSpec& spec, int64_t len, int64_t chunk) {
  Context context({.threads = 1});
  Random random(121);
  const Tokens x(random, len, heads, 16, 8);
  KvCache cache(x.shape(KvDType::f16));
  Approximation approximation(spec, cache.shape());
  run(context, approximation, cache, cache.create(), x, heads, 0, len, chunk);
  const ApproxStats& stats = approximation.stats();
  const double bytes = (16 + 8) * 2;
  EXPECT_EQ(stats.tokens, static_cast<double>(2 * len));
  EXPECT_EQ(stats.keys_visible, static_cast<double>(len * (len + 1)));
  EXPECT_EQ(stats.bytes_visible, bytes * stats.keys_visible);
  EXPECT_GE(stats.bytes_read, bytes * stats.keys_read);
  const ApproxStats copy = stats;
  approximation.reset_stats();
  EXPECT_EQ(approximation.stats().tokens, 0);
  EXPECT_EQ(approximation.stats().keys_read, 0);
  EXPECT_FALSE(approximation.stats().chosen);
  return copy;
}

/// Keys read of both KV heads and of `other` bytes a token to choose; chosen, least and most.
struct Counted {
  std::function<int64_t(int64_t position)> read;
  std::optional<std::pair<int64_t, int64_t>> chosen;
  std::function<int64_t(int64_t position)> other = [](int64_t) { return 0; };
};

void check(const AttentionSpec& spec, int64_t len, const Counted& counted) {
  int64_t read = 0, other = 0;
  for (int64_t p = 0; p < len; ++p) {
    read += 2 * counted.read(p);
    other += 2 * counted.other(p);
  }
  for (const int64_t chunk : {len, int64_t{1}, int64_t{50}}) {
    SCOPED_TRACE(attention_text(spec) + ", " + std::to_string(chunk) + " tokens a call");
    const ApproxStats stats = stats_of(spec, len, chunk);
    EXPECT_EQ(stats.keys_read, static_cast<double>(read));
    EXPECT_EQ(stats.bytes_read, static_cast<double>(read * 48 + other));
    ASSERT_EQ(stats.chosen.has_value(), counted.chosen.has_value());
    if (!counted.chosen) continue;
    EXPECT_EQ(stats.chosen->min, counted.chosen->first);
    EXPECT_EQ(stats.chosen->max, counted.chosen->second);
    EXPECT_GE(stats.chosen->mean, static_cast<double>(stats.chosen->min));
    EXPECT_LE(stats.chosen->mean, static_cast<double>(stats.chosen->max));
  }
}

int64_t all(int64_t p) { return p + 1; }

TEST(ApproxStats, MasksAndExact) {
  check(ExactAttention{}, 70, {all, {}});
  check(BlockLocal{30}, 70, {[](int64_t p) { return p % 30 + 1; }, {}});
  check(SlidingWindow{30}, 70, {[](int64_t p) { return std::min<int64_t>(p + 1, 30); }, {}});
}

TEST(ApproxStats, Pages) {
  // Of the token's own page, its past; a summary is the highest and the lowest key, in bf16.
  const auto some = [](int64_t pages) {
    return [pages](int64_t p) { return p / 64 < pages ? p + 1 : (pages - 1) * 64 + p % 64 + 1; };
  };
  const auto bounds = [](int64_t pages) {
    return [pages](int64_t p) { return p / 64 < pages ? 0 : p / 64 * 2 * 16 * 2; };
  };
  check(TopPages{1}, 300, {some(3), {{1, 3}}, bounds(3)});
  check(TopPages{4}, 300, {some(4), {{1, 4}}, bounds(4)});
  check(TopPages{5}, 300, {all, {{1, 5}}});
  check(TopMass{1}, 300, {all, {{1, 5}}});
  // A share so small that those which are always chosen hold it.
  check(TopMass{1e-9}, 300,
        {some(3), {{1, 3}}, [](int64_t p) { return p / 64 < 3 ? 0 : p / 64 * 16 * 4; }});
}

TEST(ApproxStats, Keys) {
  const auto ten = [](int64_t p) { return std::min<int64_t>(10, p + 1); };
  check(LowRank{16, 10}, 90,
        {ten, {{1, 10}}, [](int64_t p) { return p < 10 ? 0 : (p + 1) * 16 * 2; }});
  check(LowRank{16}, 90, {all, {{1, 90}}});
  // Without stored directions the first 256 tokens see all keys; 6 numbers of bf16 in three words.
  check(LowRank{6, 10}, 300,
        {[](int64_t p) { return p < 256 ? p + 1 : 10; },
         {{1, 256}},
         [](int64_t p) { return p < 256 ? 0 : (p + 1) * 6 * 2; }});
}

TEST(ApproxStats, Summaries) {
  // Position 99 is the first whose window of 68 begins in a block that is not the first.
  const auto far = [](int64_t p) { return p < 99 ? 0 : (p - 67) / 32; };
  check(GlobalLocal{68, 32}, 200,
        {[&](int64_t p) { return p + 1 - 32 * far(p); },
         {{0, 4}},
         [&](int64_t p) { return far(p) * (16 + 8) * 4; }});
}

TEST(ApproxStats, Groups) {
  // Leaders read all that lies before the segment: the first of each quarter.
  const auto quarter = [](int64_t p) {
    return p < 128 ? p + 1 : p % 128 + 1 + (p % 32 == 0 ? p / 128 * 128 : 0);
  };
  check(Clustered{4, 0}, 300, {quarter, {{4, 4}}});
  // Members read the page that is left to them.
  const auto rescored = [](int64_t p) {
    const int64_t far = p / 128 * 128;
    return p % 128 + 1 + (far == 0 ? 0 : p % 32 == 0 ? far : 64);
  };
  check(Clustered{4, 1}, 300, {rescored, {{4, 4}}, [](int64_t p) {
                                 return p >= 128 && p % 32 == 0 ? p / 128 * 2 * 2 * 16 * 2 : 0;
                               }});
  check(DynamicGroups{0}, 300, {all, {{128, 128}}});
  check(DynamicGroups{1e9}, 270,
        {[](int64_t p) { return p % 128 + 1 + (p % 128 == 0 ? p : 0); }, {{1, 1}}});
  check(DynamicGroups{1}, 128, {all, {}});
}

TEST(ApproxStats, MemoryIsThatOfSummariesAndGroups) {
  Context context({.threads = 1});
  Random random(122);
  const Tokens x(random, 400, heads, 16, 8);
  for (const AttentionSpec& spec : std::vector<AttentionSpec>{
           ExactAttention{}, BlockLocal{8}, TopPages{3}, TopMass{0.5}, LowRank{4, 30},
           GlobalLocal{8, 8}, Clustered{8, 0}, Clustered{8, 1}, DynamicGroups{0.1}}) {
    KvCache cache(x.shape());
    Approximation approximation(spec, cache.shape());
    EXPECT_EQ(approximation.spec(), spec);
    EXPECT_EQ(approximation.memory_bytes(), 0) << attention_text(spec);
    run(context, approximation, cache, cache.create(), x, heads, 0, 400, 400);
    EXPECT_EQ(approximation.memory_bytes() > 0, !Approximation::as_mask(spec, {}).has_value())
        << attention_text(spec);
  }
}

TEST(ApproxErrors, SpecsThatDoNotFitTheShape) {
  const KvShape shape{{2, 3}, 16, 8, KvDType::f32};
  expect_error(ErrorKind::usage,
               {"lowrank:17,5", "17", "at most 16, the head size; nearest: lowrank:16,5"}, [&] {
                 Approximation(LowRank{17, 5}, shape);
               });
  Approximation(LowRank{16, 5}, shape);
  Random random(123);
  KeyDirections directions = test::random_directions(random, 2, 16);
  expect_error(ErrorKind::usage, {"directions of 1 layers", "expected 2"}, [&] {
    Approximation(LowRank{4, 5}, shape, directions);
  });
  directions.layers.push_back(directions.layers[0]);
  expect_error(ErrorKind::usage, {"layer 1", "512 elements", "expected 768"}, [&] {
    Approximation(LowRank{4, 5}, shape, directions);
  });
  directions.layers[1] = test::random_directions(random, 3, 16).layers[0];
  Approximation(LowRank{4, 5}, shape, directions);
}

TEST(ApproxErrors, CallsThatDoNotFit) {
  Context context({.threads = 1});
  Random random(124);
  const Tokens x(random, 20, heads, 16, 8);
  const std::vector<AttentionSpec> variants{TopPages{3},       TopMass{0.5},     LowRank{4, 3},
                                            LowRank{16, 3},    Clustered{4, 0},  Clustered{4, 1},
                                            DynamicGroups{.1}, GlobalLocal{4, 4}};
  for (const AttentionSpec& spec : variants) {
    KvCache cache(x.shape());
    Approximation approximation(spec, cache.shape());
    const int64_t id = cache.create();
    append(context, cache, id, x, 0, 9);
    std::vector<float> out(20 * 4 * 8);
    const auto attend = [&](const Approximation::Item& item,
                            const Approximation::Options& options) {
      approximation.attend(context, cache, 0, std::span(&item, 1), options);
    };
    expect_error(ErrorKind::usage, {attention_text(spec), "window", "7"},
                 [&] { attend(item_of(id, x, 0, 9, out.data()), {.window = 7}); });
    expect_error(ErrorKind::usage, {"10 query tokens", "9"},
                 [&] { attend(item_of(id, x, 0, 10, out.data()), {}); });
    auto item = item_of(id, x, 0, 9, out.data());
    attend(item, {});
    const std::vector<int32_t> two{0, 4};
    expect_error(ErrorKind::usage, {"group_offsets"},
                 [&] { attend(item, {.group_offsets = two}); });
    item.q.shape = {9, 3, 16};
    expect_error(ErrorKind::usage, {"3 query heads"}, [&] { attend(item, {}); });
    item.q.shape = {9, 4, 17};
    expect_error(ErrorKind::usage, {"head size 17"}, [&] { attend(item, {}); });
    item = item_of(id, x, 0, 9, out.data());
    item.out.shape = {9, 4, 9};
    expect_error(ErrorKind::usage, {"out has shape [9, 4, 9]"}, [&] { attend(item, {}); });
    const Tokens small(random, 20, heads, 15, 8);
    KvCache other(small.shape());
    const int64_t its_id = other.create();
    append(context, other, its_id, small, 0, 9);
    item = item_of(its_id, small, 0, 9, out.data());
    expect_error(ErrorKind::usage, {attention_text(spec), "15"},
                 [&] { approximation.attend(context, other, 0, std::span(&item, 1), {}); });
  }
}

}  // namespace
}  // namespace gqa
