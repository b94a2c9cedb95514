// What the KV cache does where pages or memory end, and with what used pages hold.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gqa/attention.h"
#include "support/expect_error.h"
#include "support/small_kv_cache.h"

#if defined(__SANITIZE_ADDRESS__)
// Memory that ends is an error to recover from here too.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
#elif defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1"; }
#endif

namespace gqa {
namespace {

using test::expect_error;
using test::SmallKvCache;

void expect_missing(const std::string& message, const std::function<void()>& call) {
  EXPECT_EQ(expect_error(ErrorKind::resources, {}, call), "KV cache: " + message);
}

TEST(KvMemory, ReserveTakesThePagesOfAllSequencesAndLayersOrNone) {
  SmallKvCache s({2, 1}, 12);
  EXPECT_EQ(s.cache.max_pages(), 12);
  const int64_t a = s.filled(100, 1.0f);
  const int64_t b = s.filled(64, 2.0f);  // 6 pages in all
  const auto reserve = [&](std::vector<KvCache::Growth> growths) { s.cache.reserve(growths); };
  const KvUsage before = s.cache.usage();
  // The first alone would have its pages.
  expect_missing("2 pages are missing: 8 needed, 6 left of 12", [&] {
    reserve({{a, 29}, {b, 129}});
  });
  EXPECT_EQ(s.cache.usage(), before);
  reserve({{a, 29}, {b, 128}});
  EXPECT_EQ(s.cache.usage().pages, 12);
  s.cache.truncate(b, 64);
  EXPECT_EQ(s.cache.usage().pages, 8);
  reserve({{b, 128}});
  EXPECT_EQ(s.cache.usage().pages, 12);
  EXPECT_EQ(s.cache.used_bytes(b), 64 * s.cache.shape().bytes_per_token());
  s.append(b, 128, 2.0f);
  s.append(a, 29, 1.0f);
  expect_missing("1 page is missing: 1 needed, 0 left of 12",
                 [&] { s.append_layer(b, 0, 1, 2.0f); });
  EXPECT_EQ(s.cache.len(b, 0), 192);
  reserve({});
  reserve({{b, 0}});
  expect_error(ErrorKind::usage, {"sequence 0 occurs twice"}, [&] {
    reserve({{a, 1}, {b, 1}, {a, 1}});
  });
  expect_error(ErrorKind::usage, {"-1 tokens"}, [&] { reserve({{a, -1}}); });
  expect_error(ErrorKind::usage, {"expected 0 to"}, [&] { reserve({{a, INT64_MAX}}); });
}

TEST(KvMemory, ReserveCountsTheCopiesThatSharersNeed) {
  for (const int64_t writers : {1, 2, 3}) {
    SmallKvCache s({1, 1}, 100);
    std::vector<KvCache::Growth> growths{{s.filled(10, 1.0f), 5}};
    for (int i = 0; i < 2; ++i) growths.push_back({s.cache.fork(growths[0].sequence, 10), 5});
    growths.resize(static_cast<size_t>(writers));
    s.cache.reserve(growths);  // the last of three holders keeps the page
    EXPECT_EQ(s.cache.usage().pages, 2 + 2 * std::min<int64_t>(writers, 2));
    const KvUsage reserved = s.cache.usage();
    for (const auto& growth : growths) s.append(growth.sequence, 5, 2.0f);
    EXPECT_EQ(s.cache.usage(), reserved);
  }
}

TEST(KvMemory, FreePagesOfOneSizeMakeRoomForAnother) {
  SmallKvCache s({2, 1}, 10);
  const int64_t sequence = s.filled(5 * 64, 1.0f);
  s.cache.free(sequence);
  EXPECT_EQ(s.cache.usage().free_pages, 10);
  const int64_t other = s.cache.create();
  s.append_layer(other, 1, 10 * 64, 1.0f);
  EXPECT_EQ(s.cache.usage(), (KvUsage{.pages = 10, .bytes = 10 * s.cache.shape().page_bytes(1)}));
  expect_missing("1 page is missing: 1 needed, 0 left of 10",
                 [&] { s.append_layer(other, 0, 1, 1.0f); });
}

TEST(KvMemory, WhereTheSystemsMemoryEndsTheCacheStaysAsItWas) {
  // A page of the second layer is more than there are addresses.
  KvCache cache({.kv_heads = {1, int64_t{1} << 40}, .head_dim = 8, .v_head_dim = 8});
  Context context({.threads = 1});
  const int64_t sequence = cache.create();
  const std::vector<float> x(80);
  const AnyView<3> ten(x.data(), DType::f32, {10, 1, 8});
  cache.append(context, sequence, 0, ten, ten);
  const int64_t fork = cache.fork(sequence, 0);
  const std::vector<KvCache::Growth> growths{{sequence, 100}, {fork, 1}};
  expect_error(ErrorKind::resources, {"out of memory"}, [&] { cache.reserve(growths); });
  EXPECT_EQ(cache.usage().pages, 1);
  EXPECT_EQ(cache.len(sequence, 0), 10);
  EXPECT_EQ(cache.len(sequence, 1), 0);
  cache.append(context, sequence, 0, ten, ten);
  cache.free(sequence);
  EXPECT_EQ(cache.usage().pages, 0);
}

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> attended(SmallKvCache& s, int64_t sequence) {
  const std::vector<float> q{0.5f, -2.0f};
  std::vector<float> out(3, nan);
  const AttendItem item{.q = {q.data(), DType::f32, {1, 1, 2}},
                        .kv = s.cache.view(sequence, 0),
                        .out = {out.data(), DType::f32, {1, 1, 3}}};
  attend(s.context, {&item, 1});
  return out;
}

class KvMemoryOfType : public testing::TestWithParam<KvDType> {};
INSTANTIATE_TEST_SUITE_P(All, KvMemoryOfType,
                         testing::Values(KvDType::f32, KvDType::bf16, KvDType::int8, KvDType::int4),
                         [](const auto& type) { return std::string(kv_dtype_name(type.param)); });

TEST_P(KvMemoryOfType, NanThatUsedPagesStillHoldNeverReachesAttention) {
  SmallKvCache fresh({1}, 0, GetParam());
  const std::vector<float> expected = attended(fresh, fresh.filled(3, 1.0f));
  EXPECT_NEAR(expected[2], 1.0f, 1e-6f);
  SmallKvCache s({1}, 0, GetParam());
  const int64_t gone = s.filled(128, nan);
  const int64_t cut = s.filled(100, nan);
  const int64_t forked = s.filled(3, 1.0f);
  const int64_t clean = s.filled(3, 1.0f);
  s.cache.free(gone);
  s.cache.truncate(cut, 0);
  s.append(cut, 60, nan);
  s.cache.truncate(cut, 0);
  s.append(cut, 3, 1.0f);  // into a page that was free
  const int64_t tail = s.cache.fork(forked, 3);
  s.append(tail, 40, nan);
  s.cache.truncate(tail, 3);  // which leaves its NaN behind
  const int64_t copy = s.cache.fork(tail, 3);
  s.append(copy, 1, 1.0f);  // in a copy of them
  s.cache.truncate(copy, 3);
  for (const int64_t sequence : {clean, cut, tail, copy}) {
    EXPECT_EQ(attended(s, sequence), expected) << sequence;
  }
}

}  // namespace
}  // namespace gqa
