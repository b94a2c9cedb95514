// attend() on caches of int8 and int4.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/attention_case.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::draw;
using test::Problem;
using test::Random;
using test::Sizes;

constexpr KvDType types[] = {KvDType::int8, KvDType::int4};

/// A problem with dense f32 keys, values and outputs.
void fill_dense(Random& random, Problem& p, const Sizes& s) {
  test::fill_problem(random, p, s);
  p.pages.clear();
  p.k = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.head_dim}, true};
  p.v = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.v_head_dim}, true};
  p.out = {random, DType::f32, p.out.shape, true};
  p.item.out = p.out.mut();
  test::fill_inputs(random, p);
}

/// A cache of one layer and one sequence that holds p's keys and values.
KvCache cache_of(Context& context, const Problem& p, KvDType t) {
  const auto& k = p.k.shape;
  KvCache cache({.kv_heads = {k[2]}, .head_dim = k[3], .v_head_dim = p.v.shape[3], .dtype = t});
  cache.append(context, cache.create(), 0, {p.k.memory.data(), DType::f32, {k[1], k[2], k[3]}},
               {p.v.memory.data(), DType::f32, {k[1], k[2], p.v.shape[3]}});
  return cache;
}

std::vector<std::byte> bits_of(Context& context, Problem& p, const AttendOptions& options) {
  p.out.fill([] { return 99.0f; });
  attend(context, std::span(&p.item, 1), options);
  std::vector<std::byte> all = p.out.memory;
  all.insert(all.end(), p.lse.memory.begin(), p.lse.memory.end());
  return all;
}

TEST_P(Isa, AQuantisedCacheCountsAsTheNumbersThatItReads) {
  Random random(21);
  Context context({.threads = 2, .isa = GetParam()});
  std::vector<int64_t> head_sizes{80, 128};
  for (int64_t d = 1; d <= 40; ++d) head_sizes.push_back(d);
  for (const int64_t head_dim : head_sizes) {
    for (const KvDType t : types) {
      const test::Heads heads = test::draw_heads(random);
      Sizes s = test::draw_sizes(random, 500'000, heads);
      s.head_dim = head_dim;
      if (draw(random, 0, 1)) s.v_head_dim = head_dim;
      test::Options o;
      test::draw_options(random, heads, s.kv_len, o);
      Problem p;
      fill_dense(random, p, s);
      const KvCache cache = cache_of(context, p, t);
      p.item.kv = cache.view(0, 0);
      const auto got = bits_of(context, p, o.options);
      cache.read(0, 0, 0, s.kv_len, reinterpret_cast<float*>(p.k.memory.data()),
                 reinterpret_cast<float*>(p.v.memory.data()));
      p.item.kv = StridedKv{p.k.view(), p.v.view(), {}, 0, s.kv_len};
      ASSERT_EQ(bits_of(context, p, o.options), got)
          << kv_dtype_name(t) << ", " << test::describe(s, o, p.item);
    }
  }
}

/// One key or value of a KV head becomes NaN: query heads that read it and rows that see it turn
/// NaN throughout, all others keep every bit.
TEST_P(Isa, NanReachesTheRowsThatSeeItAndNoOthers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Context context({.threads = 1, .isa = GetParam()});
  Random random(22);
  for (int round = 0; round < test::rounds(60); ++round) {
    const KvDType t = types[round % 2];
    const int64_t group = draw(random, 1, 5);
    const Sizes s{draw(random, 1, 100), 2 * group, 2, 24, 23, 200};
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
    (draw(random, 0, 1) ? p.v : p.k).set({0, bad, kv_head, 7}, nan);
    const KvCache cache = cache_of(context, p, t);
    p.item.kv = cache.view(0, 0);
    attend(context, std::span(&p.item, 1), o.options);
    const auto sees = test::sees(o.options.mask, p.item.prefix);
    const int64_t start = p.item.q_start.value_or(s.kv_len - s.q_len);
    for (int64_t q = 0; q < s.q_len; ++q) {
      for (int64_t h = 0; h < s.q_heads; ++h) {
        const bool touched = h / group == kv_head && sees(start + q, bad);
        for (int64_t d = 0; d < s.v_head_dim; ++d) {
          const float got = p.out.get({q, h, d});
          ASSERT_TRUE(touched ? std::isnan(got) : got == clean.get({q, h, d}))
              << kv_dtype_name(t) << ", " << q << " " << h << " " << d << " bad " << bad << ", "
              << test::describe(s, o, p.item);
        }
      }
    }
  }
}

}  // namespace
}  // namespace gqa
