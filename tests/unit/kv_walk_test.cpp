// A long random walk of the KV cache beside the obvious one: contents, lengths and every count, at
// every step.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

#include "gqa/error.h"
#include "gqa/kv_cache.h"
#include "support/expect_error.h"
#include "support/quantised.h"
#include "support/simple_kv_cache.h"

namespace gqa {
namespace {

using test::SimpleKvCache;
using Layer = SimpleKvCache::Layer;

constexpr int64_t head_dim = 2;
constexpr int64_t v_head_dim = 1;

constexpr size_t most_sequences = 7;
constexpr int64_t most_tokens = 330;

/// Element i of what a token's name stands for: 24 bits, which f32 holds exactly.
float element(uint32_t token, int64_t i) {
  uint32_t x = token * 0x9e3779b9u + static_cast<uint32_t>(i) * 0x85ebca6bu;
  x = (x ^ x >> 15) * 0x2c1b3c6du;
  return static_cast<float>((x ^ x >> 13) >> 8);
}

class Walk {
 public:
  Walk(uint64_t seed, int64_t pages, const KvShape& shape)
      : random_(seed), max_pages_(pages), cache_(shape, pages), simple_(shape, pages) {}

  int64_t refused = 0;  ///< for want of pages

  void step() {
    const int64_t what = draw(0, 99);
    if (simple_.sequences.empty() || what < 4) {
      create();
    } else if (what < 10) {
      fork();
    } else if (what < 15) {
      free();
    } else if (what < 22) {
      truncate();
    } else if (what < 30) {
      release();
    } else if (what < 37) {
      reserve();
    } else if (what < 60) {
      append(any(), draw(0, 2), tokens());
    } else {
      const int64_t n = tokens();
      const int64_t id = any();
      for (int64_t layer = 0; layer < 3; ++layer) append(id, layer, n);
    }
    ASSERT_EQ(cache_.usage(), simple_.usage());
    if (max_pages_ > 0) {
      ASSERT_LE(cache_.usage().pages + cache_.usage().free_pages, max_pages_);
    }
  }

  void compare_everything() {
    for (const auto& [id, sequence] : simple_.sequences) {
      compare_sizes(id);
      for (int64_t layer = 0; layer < 3; ++layer) compare(id, layer, 0, most_tokens);
    }
  }

  void free_everything() {
    while (!simple_.sequences.empty()) free();
    EXPECT_EQ(cache_.usage().pages, 0);
    EXPECT_EQ(cache_.usage().shared_pages, 0);
    for (const auto& pool : simple_.pools) EXPECT_EQ(pool.live, 0);
    EXPECT_EQ(cache_.usage(), simple_.usage());
  }

 private:
  int64_t draw(int64_t from, int64_t to) {
    return from + static_cast<int64_t>(random_() % static_cast<uint64_t>(to - from + 1));
  }
  int64_t any() {
    return std::next(simple_.sequences.begin(), draw(0, std::ssize(simple_.sequences) - 1))->first;
  }
  int64_t tokens() { return draw(0, 2) > 0 ? draw(0, 4) : draw(0, 140); }
  Layer& layer_of(int64_t id, int64_t layer) {
    return simple_.sequences.at(id)[static_cast<size_t>(layer)];
  }

  /// Calls it and expects an error if the simple cache says so, which leaves everything as it was.
  template <typename Call>
  bool is_refused(bool expected, Call&& call) {
    if (expected) {
      test::expect_error(ErrorKind::usage, {"KV cache: "}, call);
    } else {
      call();
    }
    return expected;
  }

  /// The same for want of pages.
  template <typename Call>
  bool ends_pages(std::span<const SimpleKvCache::Growth> growths, Call&& call) {
    const int64_t needed = SimpleKvCache::needed(growths);
    const int64_t left = simple_.left();
    if (needed <= left) {
      call();
      SimpleKvCache::grow(growths);
      return false;
    }
    ++refused;
    const int64_t missing = needed - left;
    const std::string message =
        fmt::format("KV cache: {} {} missing: {} needed, {} left of {}", missing,
                    missing == 1 ? "page is" : "pages are", needed, left, max_pages_);
    EXPECT_EQ(test::expect_error(ErrorKind::resources, {}, call), message);
    return true;
  }

  void create() {
    if (simple_.sequences.size() >= most_sequences) return;
    const int64_t id = cache_.create();
    ASSERT_TRUE(simple_.sequences.emplace(id, simple_.empty).second) << "an id that is alive";
    compare_sizes(id);
  }

  void fork() {
    if (simple_.sequences.size() >= most_sequences) return;
    const int64_t id = any();
    const auto& from = simple_.sequences.at(id);
    const int64_t len = SimpleKvCache::len(from);
    const int64_t kept = draw(0, 3) > 0 ? len : draw(-1, len + 1);
    int64_t fork = -1;
    if (is_refused(!SimpleKvCache::may_end(from, kept), [&] { fork = cache_.fork(id, kept); }))
      return;
    auto copy = from;
    for (Layer& layer : copy) SimpleKvCache::shorten(layer, kept);
    ASSERT_TRUE(simple_.sequences.emplace(fork, std::move(copy)).second) << "an id that is alive";
    compare_sizes(fork);
    for (int64_t layer = 0; layer < 3; ++layer) compare(fork, layer, kept - 2, kept);
  }

  void free() {
    const int64_t id = any();
    cache_.free(id);
    simple_.sequences.erase(id);
    EXPECT_THROW(cache_.len(id), Error);
  }

  void truncate() {
    const int64_t id = any();
    auto& sequence = simple_.sequences.at(id);
    const int64_t len = SimpleKvCache::len(sequence);
    const int64_t kept = draw(0, 2) > 0 ? draw(len * 3 / 4, len) : draw(-1, len + 1);
    const bool refuse = !SimpleKvCache::may_end(sequence, kept);
    if (is_refused(refuse, [&] { cache_.truncate(id, kept); })) return;
    for (Layer& layer : sequence) SimpleKvCache::shorten(layer, kept);
    compare_sizes(id);
  }

  void release() {
    const int64_t id = any();
    const int64_t layer = draw(0, 2);
    const int64_t len = layer_of(id, layer).len;
    const int64_t begin = draw(0, 1) > 0 ? 0 : draw(-1, len);
    const int64_t end = draw(begin, len + (draw(0, 9) == 0));
    const bool refuse = begin < 0 || end > len;
    if (is_refused(refuse, [&] { cache_.release(id, layer, begin, end); })) return;
    SimpleKvCache::release(layer_of(id, layer), begin, end);
    compare_sizes(id);
  }

  void reserve() {
    std::vector<KvCache::Growth> growths;
    std::vector<SimpleKvCache::Growth> simple;
    for (auto& [id, sequence] : simple_.sequences) {
      if (draw(0, 2) > 0) continue;
      growths.push_back({id, tokens()});
      for (Layer& layer : sequence) simple.push_back({&layer, growths.back().tokens});
    }
    ends_pages(simple, [&] { cache_.reserve(growths); });
    for (const auto& growth : growths) compare_sizes(growth.sequence);
  }

  void append(int64_t id, int64_t layer, int64_t n) {
    Layer& simple = layer_of(id, layer);
    n = std::min(n, most_tokens - simple.len);
    const int64_t heads = cache_.shape().kv_heads[static_cast<size_t>(layer)];
    k_.clear();
    v_.clear();
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t d = 0; d < 3; ++d) {
          (d < head_dim ? k_ : v_).push_back(element(names_ + static_cast<uint32_t>(t), h * 3 + d));
        }
      }
    }
    const SimpleKvCache::Growth growth{&simple, n};
    const int64_t old = simple.len;
    const bool ended = ends_pages({&growth, 1}, [&] {
      cache_.append(context_, id, layer, {k_.data(), DType::f32, {n, heads, head_dim}},
                    {v_.data(), DType::f32, {n, heads, v_head_dim}});
    });
    if (!ended) {
      for (simple.len += n; n > 0; --n) simple.token(simple.len - n) = names_++;
    }
    compare_sizes(id);
    compare(id, layer, old - 1, simple.len);
  }

  void compare_sizes(int64_t id) {
    const auto& sequence = simple_.sequences.at(id);
    ASSERT_EQ(cache_.len(id), SimpleKvCache::len(sequence));
    for (int64_t layer = 0; layer < 3; ++layer) {
      ASSERT_EQ(cache_.len(id, layer), layer_of(id, layer).len);
      ASSERT_EQ(cache_.view(id, layer).len(), layer_of(id, layer).len);
    }
    ASSERT_EQ(cache_.used_bytes(id), SimpleKvCache::used_bytes(sequence));
  }

  /// A token's key and value of a KV head, as they should be read back.
  std::array<float, 3> stored(uint32_t token, int64_t head) const {
    const int64_t at = head * 3;
    std::array x{element(token, at), element(token, at + 1), element(token, at + 2)};
    test::quantise(cache_.shape().dtype, std::span(x).first(head_dim));
    test::quantise(cache_.shape().dtype, std::span(x).last(v_head_dim));
    return x;
  }

  /// Compares the tokens of [begin, end) that are there, page by page.
  void compare(int64_t id, int64_t layer, int64_t begin, int64_t end) {
    const Layer& simple = layer_of(id, layer);
    const int64_t heads = cache_.shape().kv_heads[static_cast<size_t>(layer)];
    end = std::min(end, simple.len);
    for (int64_t t = std::max<int64_t>(0, begin); t < end;) {
      const int64_t n = std::min(end, (t / 64 + 1) * 64) - t;
      k_.resize(static_cast<size_t>(n * heads * head_dim));
      v_.resize(static_cast<size_t>(n * heads * v_head_dim));
      const auto read = [&] { cache_.read(id, layer, t, n, k_.data(), v_.data()); };
      if (!is_refused(!simple.holds(t), read)) {
        const float* k = k_.data();
        const float* v = v_.data();
        for (int64_t i = 0; i < n * heads; ++i) {
          const auto expected = stored(simple.token(t + i / heads), i % heads);
          for (int64_t d = 0; d < 3; ++d) {
            ASSERT_EQ(*(d < head_dim ? k : v)++, expected[static_cast<size_t>(d)])
                << "sequence " << id << ", layer " << layer << ", token " << t + i / heads;
          }
        }
      }
      t += n;
    }
  }

  std::mt19937_64 random_;
  int64_t max_pages_;
  Context context_{{.threads = 1}};
  KvCache cache_;
  SimpleKvCache simple_;
  uint32_t names_ = 1;
  std::vector<float> k_, v_;
};

/// Returns how often pages ended.
int64_t walk(int64_t steps, uint64_t seed, int64_t max_pages, KvDType dtype = KvDType::f32) {
  Walk walk(seed, max_pages, {{2, 1, 2}, head_dim, v_head_dim, dtype});  // pages of two sizes
  for (int64_t i = 0; i < steps; ++i) {
    walk.step();
    if (i % 100 == 0) walk.compare_everything();
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "at step " << i;
      return 0;
    }
  }
  walk.free_everything();
  return walk.refused;
}

TEST(KvWalk, AMillionStepsLeaveTheCacheLikeTheObviousOne) { EXPECT_EQ(walk(1'000'000, 1, 0), 0); }

TEST(KvWalk, QuantisedTokensKeepTheirScales) {
  EXPECT_EQ(walk(60'000, 4, 0, KvDType::int8), 0);
  EXPECT_EQ(walk(60'000, 5, 0, KvDType::int4), 0);
}

TEST(KvWalk, RunningOutOfPagesLeavesTheCacheAsItWas) {
  EXPECT_GT(walk(200'000, 2, 60), 2'000);
  EXPECT_GT(walk(50'000, 3, 12), 10'000);
}

}  // namespace
}  // namespace gqa
