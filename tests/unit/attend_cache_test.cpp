// attend() on caches of every type.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/context.h"
#include "reference/attention.h"
#include "support/attention_bound.h"
#include "support/cached_case.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::cache_of;
using test::draw;
using test::fill_dense;
using test::Problem;
using test::Random;
using test::Sizes;

TEST_P(Isa, ACacheCountsAsTheNumbersThatItReads) {
  Random random(21);
  Context context({.threads = 2, .isa = GetParam()});
  std::vector<int64_t> head_sizes{80, 128, 256, 600};
  for (int64_t d = 1; d <= 40; ++d) head_sizes.push_back(d);
  for (const int64_t head_dim : head_sizes) {
    for (const KvDType t : test::kv_dtypes) {
      const test::Heads heads = test::draw_heads(random);
      Sizes s = test::draw_sizes(random, 300'000, heads);
      s.head_dim = head_dim;
      if (draw(random, 0, 1)) s.v_head_dim = head_dim;
      test::Options o;
      test::draw_options(random, heads, s.kv_len, o);
      Problem p;
      fill_dense(random, p, s);
      const KvCache cache = cache_of(context, p, t);
      p.item.kv = cache.view(0, 0);
      p.out.fill([] { return 99.0f; });
      attend(context, std::span(&p.item, 1), o.options);
      test::read_back(cache, p, s.kv_len);
      const auto expected =
          reference::attend(p.item, o.options, test::sees(o.options.mask, p.item.prefix));
      const bool stored = context.impl().kernels->takes_stored(t);
      const auto rounded = stored ? test::rounding_of(t, p, s, o.options) : test::Rounded{};
      ASSERT_TRUE(test::agrees(p, s, o.options, expected, rounded))
          << kv_dtype_name(t) << ", " << test::describe(s, o, p.item);
    }
  }
}

/// One token of normal numbers, the query's being bf16, and a cache of them.
struct Typical {
  static constexpr Sizes sizes{3, 8, 2, 128, 128, 3000};
  Problem p;

  Typical(Random& random, Context& context, KvDType t, const Sizes& s = sizes,
          DType out = DType::f32) {
    fill_dense(random, p, s);
    p.out = {random, out, p.out.shape, true};
    p.q = {random, DType::bf16, p.q.shape, true};
    std::normal_distribution<float> normal;
    const auto next = [&] { return normal(random); };
    p.q.fill(next);
    p.k.fill(next);
    p.v.fill(next);
    p.item = {.q = p.q.view(), .kv = {}, .out = p.out.mut()};
    const KvCache cache = cache_of(context, p, t);
    p.item.kv = cache.view(0, 0);
    attend(context, std::span(&p.item, 1));
    test::read_back(cache, p, s.kv_len);
  }

  /// The square of the outputs' error as a share of that of the outputs.
  double error(const std::vector<double>& exact) const {
    double error = 0, size = 0;
    size_t i = 0;
    p.out.for_each([&](float x) {
      error += (x - exact[i]) * (x - exact[i]);
      size += exact[i] * exact[i];
      ++i;
    });
    return error / size;
  }
};

/// Without the cases that a bound has to allow for. Rounding to 16 bits leaves, with normal
/// numbers, 3e-5 of a score and 4e-5 of a typical weight: 3e-9 of the output's square.
TEST_P(Isa, IntegersCostLittleAccuracy) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(23);
  for (const KvDType t : test::kv_dtypes) {
    const bool stored = context.impl().kernels->takes_stored(t);
    if (stored && !is_quantised(t)) continue;
    const Typical typical(random, context, t);
    const auto exact = reference::attend(typical.p.item, {}, test::sees({}, 0));
    EXPECT_LE(typical.error(exact.out), stored ? 1e-8 : 1e-11) << kv_dtype_name(t);
  }
}

TEST_P(Isa, ManyKeysCostNoAccuracy) {
  Context context({.threads = 2, .isa = GetParam()});
  Random random(26);
  const Typical typical(random, context, KvDType::f32, {1, 4, 1, 128, 128, test::rounds(65'537)});
  const auto exact = reference::attend(typical.p.item, {}, test::sees({}, 0));
  EXPECT_LE(typical.error(exact.out), 1e-11);
}

/// Arithmetic is f32: what a result of 16 bits loses is its own rounding, and nothing to speak of
/// before.
TEST_P(Isa, ResultsOf16BitsAreOffByTheirOwnRounding) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(27);
  for (const DType t : {DType::f16, DType::bf16}) {
    if (context.impl().kernels->takes_stored(kv_dtype(t))) continue;
    Typical typical(random, context, kv_dtype(t), Typical::sizes, t);
    const auto exact = reference::attend(typical.p.item, {}, test::sees({}, 0)).out;
    const double error = typical.error(exact);
    size_t i = 0;
    typical.p.out.fill([&] { return static_cast<float>(exact[i++]); });  // rounds
    EXPECT_LE(error, 1.01 * typical.error(exact)) << dtype_name(t);
  }
}

/// Where bf16 caches are multiplied as bf16, all that is lost is what a computation loses that
/// rounds its probabilities to bf16 and nothing else.
TEST_P(Isa, Bf16CostsWhatRoundingProbabilitiesDoes) {
  Context context({.threads = 1, .isa = GetParam()});
  if (!context.impl().kernels->takes_stored(KvDType::bf16)) return;
  Random random(25);
  Typical typical(random, context, KvDType::bf16);
  const auto exact = reference::attend(typical.p.item, {}, test::sees({}, 0)).out;
  const double error = typical.error(exact);
  const Sizes& s = Typical::sizes;
  for (int64_t q = 0; q < s.q_len; ++q) {
    for (int64_t h = 0; h < s.q_heads; ++h) {
      const int64_t kv_head = h / (s.q_heads / s.kv_heads);
      std::vector<double> scores;
      for (int64_t t = 0; t < s.kv_len - s.q_len + q + 1; ++t) {
        double score = 0;
        for (int64_t d = 0; d < s.head_dim; ++d) {
          score += double{typical.p.q.get({q, h, d})} * typical.p.k.get({0, t, kv_head, d});
        }
        scores.push_back(score / std::sqrt(static_cast<double>(s.head_dim)));
      }
      const double most = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      std::vector<double> out(static_cast<size_t>(s.v_head_dim));
      for (size_t t = 0; t < scores.size(); ++t) {
        const double weight = std::exp(scores[t] - most);
        const double rounded = bf16_to_f32(f32_to_bf16(static_cast<float>(weight)));
        sum += weight;
        for (size_t d = 0; d < out.size(); ++d) {
          const auto at =
              std::array{int64_t{0}, static_cast<int64_t>(t), kv_head, static_cast<int64_t>(d)};
          out[d] += rounded * typical.p.v.get(at);
        }
      }
      for (size_t d = 0; d < out.size(); ++d) {
        typical.p.out.set({q, h, static_cast<int64_t>(d)}, static_cast<float>(out[d] / sum));
      }
    }
  }
  EXPECT_LE(error, 1.1 * typical.error(exact));
  EXPECT_LE(error, 0x1p-14 / 12);  // the mean square of rounding 1 to 2 in steps of 2^-7
}

/// One key or value of a KV head becomes NaN: query heads that read it and rows that see it turn
/// NaN throughout (in one element, if the value is not quantised), all others keep every bit.
TEST_P(Isa, NanReachesTheRowsThatSeeItAndNoOthers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Context context({.threads = 1, .isa = GetParam()});
  Random random(22);
  for (int round = 0; round < test::rounds(60); ++round) {
    const KvDType t = test::kv_dtypes[round % 5];
    const int64_t group = draw(random, 1, 5);
    const bool whole = draw(random, 0, 1) != 0;  // a whole number of tiles
    const Sizes s{draw(random, 1, 100), 2 * group, 2, whole ? 64 : 24, whole ? 32 : 23, 200};
    test::Options o;
    test::draw_options(random, {s.q_heads, s.kv_heads, {}}, s.kv_len, o);
    Problem p;
    fill_dense(random, p, s);
    p.item.bias = {};
    const KvCache clean_cache = cache_of(context, p, t);
    p.item.kv = clean_cache.view(0, 0);
    attend(context, std::span(&p.item, 1), o.options);
    const test::Array<3> clean = p.out;
    const int64_t bad = test::pick<int64_t>(random, {0, 5, 37, 63, 64, 120, 199});
    const int64_t kv_head = draw(random, 0, 1);
    const bool value = draw(random, 0, 1) != 0;
    const int64_t element = draw(random, 0, (value ? s.v_head_dim : s.head_dim) - 1);
    (value ? p.v : p.k).set({0, bad, kv_head, element}, nan);
    const KvCache cache = cache_of(context, p, t);
    p.item.kv = cache.view(0, 0);
    attend(context, std::span(&p.item, 1), o.options);
    const auto sees = test::sees(o.options.mask, p.item.prefix);
    const int64_t start = p.item.q_start.value_or(s.kv_len - s.q_len);
    for (int64_t q = 0; q < s.q_len; ++q) {
      for (int64_t h = 0; h < s.q_heads; ++h) {
        const bool touched = h / group == kv_head && sees(start + q, bad) &&
                             test::is_selected(p.item, q, kv_head, bad);
        for (int64_t d = 0; d < s.v_head_dim; ++d) {
          const float got = p.out.get({q, h, d});
          ASSERT_TRUE(touched && (!value || is_quantised(t) || d == element)
                          ? std::isnan(got)
                          : got == clean.get({q, h, d}))
              << kv_dtype_name(t) << ", " << q << " " << h << " " << d << " bad " << bad << ", "
              << test::describe(s, o, p.item);
        }
      }
    }
  }
}

/// The same of each element of a value at the edge of a mask, wherever a cache keeps it.
TEST_P(Isa, NanOfAnyElementReachesTheRowsThatSeeItAndNoOthers) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(27);
  for (const KvDType t : {KvDType::f32, KvDType::f16, KvDType::bf16}) {
    for (int64_t element = 3; element < 48; element += 14) {
      const Sizes s{48, 2, 1, 16, 48, 48};
      const int64_t bad = 33;  // some rows that go together see it, some not
      Problem p;
      fill_dense(random, p, s);
      p.v.set({0, bad, 0, element}, std::numeric_limits<float>::quiet_NaN());
      const KvCache cache = cache_of(context, p, t);
      const AttendItem item{.q = p.q.view(), .kv = cache.view(0, 0), .out = p.out.mut()};
      attend(context, std::span(&item, 1));
      for (int64_t q = 0; q < s.q_len; ++q) {
        for (int64_t d = 0; d < s.v_head_dim; ++d) {
          ASSERT_EQ(std::isnan(p.out.get({q, 1, d})), q >= bad && d == element)
              << kv_dtype_name(t) << ", " << q << " " << d;
        }
      }
    }
  }
}

/// Kernels that round queries must carry on what no scale can hold.
TEST_P(Isa, NanAndInfinityOfAQueryReachItsRowsAndNoOthers) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(26);
  for (const KvDType t : test::kv_dtypes) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const Sizes s{19, 6, 2, 48, 32, 77};
      Problem p;
      fill_dense(random, p, s);
      const KvCache cache = cache_of(context, p, t);
      const AttendItem item{.q = p.q.view(), .kv = cache.view(0, 0), .out = p.out.mut()};
      attend(context, std::span(&item, 1));
      const test::Array<3> clean = p.out;
      p.q.set({11, 4, 9}, bad);
      attend(context, std::span(&item, 1));
      for (int64_t q = 0; q < s.q_len; ++q) {
        for (int64_t h = 0; h < s.q_heads; ++h) {
          for (int64_t d = 0; d < s.v_head_dim; ++d) {
            const float got = p.out.get({q, h, d});
            ASSERT_TRUE(q == 11 && h == 4 ? std::isnan(got) : got == clean.get({q, h, d}))
                << kv_dtype_name(t) << ", " << bad << ", " << q << " " << h << " " << d;
          }
        }
      }
    }
  }
}

/// Tokens share words with their neighbours: those of a truncated end may be anything.
TEST_P(Isa, WhatTruncatedTokensLeftDoesNotCount) {
  Context context({.threads = 1, .isa = GetParam()});
  Random random(24);
  for (const KvDType t : test::kv_dtypes) {
    for (const int64_t kv_len : {1, 2, 3, 5, 13, 63, 64, 70, 77}) {
      Problem p;
      const Sizes s{1, 6, 2, 48, 32, kv_len + 9};
      fill_dense(random, p, s);
      for (int64_t token = kv_len; token < s.kv_len; ++token) {
        for (int64_t d = 0; d < 32; ++d) {
          p.k.set({0, token, 0, d}, std::numeric_limits<float>::quiet_NaN());
          p.v.set({0, token, 1, d}, std::numeric_limits<float>::infinity());
        }
      }
      KvCache cache = cache_of(context, p, t);
      cache.truncate(0, kv_len);
      const AttendItem item{.q = p.q.view(), .kv = cache.view(0, 0), .out = p.out.mut()};
      attend(context, std::span(&item, 1));
      const std::vector<std::byte> got = p.out.memory;
      p.k.shape[1] = p.v.shape[1] = kv_len;
      const KvCache fresh = cache_of(context, p, t);
      const AttendItem same{.q = p.q.view(), .kv = fresh.view(0, 0), .out = p.out.mut()};
      attend(context, std::span(&same, 1));
      ASSERT_EQ(p.out.memory, got) << kv_dtype_name(t) << ", " << kv_len;
    }
  }
}

}  // namespace
}  // namespace gqa
