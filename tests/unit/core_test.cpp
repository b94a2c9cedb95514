#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <thread>
#include <vector>

#include "core/affinity.h"
#include "core/half.h"
#include "core/text.h"
#include "core/thread_pool.h"
#include "gqa/error.h"

namespace gqa {
namespace {

// The compiler's own binary16 is the oracle; GCC 12 has no _Float16 in C++ for Arm.
#if defined(__aarch64__)
using Binary16 = __fp16;
#else
using Binary16 = _Float16;
#endif

TEST(Half, EveryF16SurvivesTheRoundTripThroughF32) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const auto bits = static_cast<uint16_t>(h);
    const float f = f16_to_f32(bits);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f)))) << h;
      continue;
    }
    EXPECT_EQ(f, static_cast<float>(std::bit_cast<Binary16>(bits))) << h;
    EXPECT_EQ(f32_to_f16(f), bits) << h;
  }
}

TEST(Half, F32ToF16RoundsToNearestEven) {
  for (uint64_t b = 0; b < 0x100000000u; b += 9973) {  // a prime step visits every exponent
    const float f = std::bit_cast<float>(static_cast<uint32_t>(b));
    if (std::isnan(f)) continue;
    ASSERT_EQ(f32_to_f16(f), std::bit_cast<uint16_t>(static_cast<Binary16>(f))) << b;
  }
}

TEST(Half, F32ToBf16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // a tie: to even
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x7f7fffffu)), 0x7f80);  // overflows to infinity
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Text, FindsWhatIsNotUtf8) {
  EXPECT_FALSE(find_invalid_utf8("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"));
  for (const char* bad : {"a\x80", "a\xc0\x80", "a\xc3", "a\xe0\x80\x80", "a\xed\xa0\x80",
                          "a\xf4\x90\x80\x80", "a\xf8\x88\x80\x80\x80", "a\xe2\x82", "a\xff"}) {
    EXPECT_EQ(find_invalid_utf8(bad), 1u) << bad;
  }
}

TEST(Text, CodePointsSurviveTheRoundTrip) {
  for (char32_t c = 0; c <= 0x10ffff; c += 7) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string s;
    utf8_append(s, c);
    ASSERT_EQ(utf8_length(s, 0), static_cast<int>(s.size()));
    ASSERT_EQ(utf8_decode(s, 0), c);
  }
}

TEST(ThreadPool, PinsItsThreadsAndGivesTheCallerItsCoresBack) {
  const auto cores = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    return set;
  };
  const cpu_set_t before = cores();
  const std::vector<int> usable = usable_cores();
  EXPECT_EQ(static_cast<int>(usable.size()), CPU_COUNT(&before));
  {
    ThreadPool pool(3, true);
    std::atomic<int> ready{0};
    pool.parallel_for(3, [&](int64_t, int thread) {
      ++ready;
      while (ready < 3) std::this_thread::yield();  // so that each thread takes one
      const cpu_set_t mine = cores();
      EXPECT_EQ(CPU_COUNT(&mine), 1);
      EXPECT_TRUE(CPU_ISSET(usable[static_cast<size_t>(thread) % usable.size()], &mine));
    });
  }
  const cpu_set_t after = cores();
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

TEST(ThreadPool, RunsEveryIndexOnce) {
  for (int threads = 1; threads <= 8; ++threads) {
    ThreadPool pool(threads);
    for (int64_t n : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> count(static_cast<size_t>(n));
      pool.parallel_for(n, [&](int64_t i, int t) {
        ASSERT_LT(t, threads);
        ++count[static_cast<size_t>(i)];
      });
      for (const auto& c : count) EXPECT_EQ(c, 1);
    }
  }
}

TEST(ThreadPool, RethrowsAndGoesOn) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool.parallel_for(100,
                                   [](int64_t i, int) {
                                     if (i == 41) throw Error(ErrorKind::io, "41");
                                   }),
                 Error);
    std::atomic<int> sum{0};
    pool.parallel_for(100, [&](int64_t, int) { ++sum; });
    EXPECT_EQ(sum, 100);
  }
}

}  // namespace
}  // namespace gqa
