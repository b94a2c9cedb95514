// What changes no bit of attend()'s results.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <memory>
#include <optional>

#include "kernels/context.h"
#include "support/cached_case.h"
#include "support/count_allocations.h"
#include "support/each_isa.h"

namespace gqa {
namespace {

using test::Array;
using test::draw;
using test::Problem;
using test::Random;
using test::Sizes;

/// Every bit of outputs and LSE.
std::vector<std::byte> bits(const Problem& p) {
  std::vector<std::byte> all = p.out.memory;
  all.insert(all.end(), p.lse.memory.begin(), p.lse.memory.end());
  return all;
}

std::vector<std::byte> bits_of(Context& context, Problem& p, const AttendItem& item,
                               const AttendOptions& options) {
  p.out.fill([] { return 99.0f; });
  attend(context, std::span(&item, 1), options);
  return bits(p);
}

/// Part [t, t + n) of the query tokens of an item.
AttendItem piece_of(const AttendItem& item, int64_t start, int64_t t, int64_t n) {
  AttendItem piece = item;
  const auto cut = [&](auto& view, size_t axis) {
    if (view.data == nullptr || view.shape[axis] == 1) return;
    using Bytes = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>,
                                     const std::byte, std::byte>;
    view.shape[axis] = n;
    view.data = static_cast<Bytes*>(view.data) + t * view.strides[axis] * dtype_bytes(view.dtype);
  };
  cut(piece.q, 0);
  cut(piece.out, 0);
  cut(piece.lse, 0);
  cut(piece.bias, 1);
  if (piece.selected.words) piece.selected.words += t * piece.selected.token_stride;
  // Sizes of 1 are left alone above: right for a bias, and for queries if there is one.
  if (item.q.shape[0] != 1) piece.q_start = start + t;
  return piece;
}

/// Keys and values in arrays of any strides and pages, or in a cache of any type.
struct AnyProblem : Problem {
  std::optional<KvCache> cache;

  AnyProblem(Random& random, Context& context, const Sizes& s) {
    if (draw(random, 0, 1)) {
      test::fill_problem(random, *this, s);
      return;
    }
    test::fill_dense(random, *this, s);
    cache = test::cache_of(context, *this, test::kv_dtypes[draw(random, 0, 4)]);
    item.kv = cache->view(0, 0);
  }
};

/// Contexts of 1 to 8 threads for an instruction set.
struct Threads {
  std::array<std::unique_ptr<Context>, 8> contexts;
  bool emulated;  ///< slow

  explicit Threads(const std::string& isa) {
    const auto available = available_isas();
    emulated = std::find(available.begin(), available.end(), isa) == available.end();
    for (size_t i = 0; i < 8; ++i) {
      contexts[i] =
          std::make_unique<Context>(ContextOptions{.threads = static_cast<int>(i) + 1, .isa = isa});
    }
  }
  Context& with(int64_t threads) const { return *contexts[static_cast<size_t>(threads - 1)]; }
};

/// The same numbers by another number of threads, and in pieces of query tokens, all of them in one
/// batch, in reverse order.
void expect_same_bits(const Threads& isa, Problem& p, const Sizes& s, const test::Options& o,
                      int64_t threads, int64_t piece) {
  const auto expected = bits_of(isa.with(1), p, p.item, o.options);
  ASSERT_EQ(bits_of(isa.with(threads), p, p.item, o.options), expected) << threads << " threads";
  const int64_t start = p.item.q_start.value_or(s.kv_len - s.q_len);
  std::vector<AttendItem> batch;
  for (int64_t t = 0; t < s.q_len; t += piece) {
    batch.insert(batch.begin(), piece_of(p.item, start, t, std::min(piece, s.q_len - t)));
  }
  p.out.fill([] { return 99.0f; });
  attend(isa.with(1), batch, o.options);
  ASSERT_EQ(bits(p), expected) << "pieces of " << piece;
}

TEST(Bits, ThreadsBatchesAndChunksChangeNone) {
  Random random(7);
  std::vector<Threads> isas;
  for (const std::string& isa : attending_isas()) isas.emplace_back(isa);
  for (int round = 0; round < test::rounds(10'000); ++round) {
    const bool large = round % 200 == 0;  // several chunks
    const test::Heads heads = test::draw_heads(random);
    Sizes s = test::draw_sizes(random, large ? 4'000'000 : round % 4 ? 40'000 : 150'000, heads);
    if (large) s.kv_len += 2000;
    test::Options o;
    test::draw_options(random, heads, s.kv_len, o);
    if (round % 3 == 0) o.options.mask = {};
    AnyProblem p(random, isas.front().with(1), s);
    const int64_t threads = draw(random, 2, 8);
    const auto piece = test::pick<int64_t>(random, {1, 3, 50});
    for (const Threads& isa : isas) {
      if (isa.emulated && round % 8 != 0) continue;
      expect_same_bits(isa, p, s, o, threads, piece);
      if (testing::Test::HasFatalFailure()) {
        FAIL() << isa.with(1).isa() << ", " << test::describe(s, o, p.item);
      }
    }
  }
}

/// Few query tokens are split over chunks of keys, many are not.
TEST_P(Isa, SplittingOverChunksChangesNoBit) {
  Random random(17);
  Context context({.threads = 2, .isa = GetParam()});
  const Sizes s{
      .q_len = 200, .q_heads = 6, .kv_heads = 2, .head_dim = 20, .v_head_dim = 9, .kv_len = 5000};
  for (const Mask& mask : {Mask{}, Mask{.causal = false}, Mask{.window = 3000, .sink_tokens = 5}}) {
    Problem p;
    test::fill_problem(random, p, s);
    p.item.q_start.reset();
    const AttendOptions options{.mask = mask};
    const auto expected = bits_of(context, p, p.item, options);
    p.out.fill([] { return 99.0f; });
    std::vector<AttendItem> batch;
    for (int64_t t = 0; t < s.q_len; ++t) {
      batch.push_back(piece_of(p.item, s.kv_len - s.q_len, t, 1));
    }
    attend(context, batch, options);
    ASSERT_EQ(bits(p), expected);
  }
}

/// Tokens [from, from + n) of a [1, len, heads, dim] array.
AnyView<3> tokens(const Array<4>& x, int64_t from, int64_t n) {
  return {x.memory.data() + from * x.strides[1] * dtype_bytes(x.dtype),
          x.dtype,
          {n, x.shape[2], x.shape[3]},
          {x.strides[1], x.strides[2], x.strides[3]}};
}

/// The same keys, in pages of `size` in a random order among others, with random strides.
void page(Random& random, Problem& p, const Array<4>& k, const Array<4>& v, int64_t size) {
  const int64_t len = k.shape[1];
  const int64_t logical = ceil_div(len, size);
  const int64_t physical = logical + draw(random, 0, 3);
  p.k = {random, k.dtype, {physical, size, k.shape[2], k.shape[3]}, false};
  p.v = {random, v.dtype, {physical, size, v.shape[2], v.shape[3]}, false};
  p.pages.resize(static_cast<size_t>(physical));
  std::iota(p.pages.begin(), p.pages.end(), 0);
  std::shuffle(p.pages.begin(), p.pages.end(), random);
  p.pages.resize(static_cast<size_t>(logical));
  const auto copy = [&](const Array<4>& from, Array<4>& to) {
    for (int64_t s = 0; s < len; ++s) {
      for (int64_t g = 0; g < from.shape[2]; ++g) {
        for (int64_t d = 0; d < from.shape[3]; ++d) {
          to.set({p.pages[static_cast<size_t>(s / size)], s % size, g, d}, from.get({0, s, g, d}));
        }
      }
    }
  };
  copy(k, p.k);
  copy(v, p.v);
  p.item.kv = StridedKv{p.k.view(), p.v.view(), p.pages, 0, len};
}

TEST_P(Isa, WhereKeysLieChangesNoBit) {
  Random random(11);
  Context context({.threads = 2, .isa = GetParam()});
  for (int round = 0; round < test::rounds(400); ++round) {
    const test::Heads heads = test::draw_heads(random);
    const Sizes s = test::draw_sizes(random, round % 100 == 0 ? 2'000'000 : 60'000, heads);
    if (s.kv_len == 0) continue;
    test::Options o;
    test::draw_options(random, heads, s.kv_len, o);
    const DType dtype = test::draw_dtype(random);
    Problem p;
    test::fill_problem(random, p, s);
    p.k = {random, dtype, {1, s.kv_len, s.kv_heads, s.head_dim}, false};
    p.v = {random, dtype, {1, s.kv_len, s.kv_heads, s.v_head_dim}, false};
    test::fill_inputs(random, p);
    const Array<4> k = p.k, v = p.v;
    p.item.kv = StridedKv{p.k.view(), p.v.view(), {}, 0, s.kv_len};
    auto expected = bits_of(context, p, p.item, o.options);
    for (const int64_t size : {test::pick<int64_t>(random, {1, 7, 16}), int64_t{64}}) {
      page(random, p, k, v, size);
      ASSERT_EQ(bits_of(context, p, p.item, o.options), expected)
          << "pages of " << size << ", " << test::describe(s, o, p.item);
    }
    KvCache cache({.kv_heads = {s.kv_heads},
                   .head_dim = s.head_dim,
                   .v_head_dim = s.v_head_dim,
                   .dtype = kv_dtype(dtype)});
    const auto append = [&](int64_t sequence, int64_t until) {
      while (cache.len(sequence) < until) {
        const int64_t at = cache.len(sequence);
        const int64_t n = std::min(until - at, draw(random, 1, 100));
        cache.append(context, sequence, 0, tokens(k, at, n), tokens(v, at, n));
      }
    };
    AttendItem packed = p.item;
    const auto expect_same = [&](int64_t sequence, const char* what) {
      packed.kv = cache.view(sequence, 0);
      ASSERT_EQ(bits_of(context, p, packed, o.options), expected)
          << what << ", " << test::describe(s, o, p.item);
    };
    const int64_t whole = cache.create();
    append(whole, s.kv_len);
    if (context.impl().kernels->takes_stored(kv_dtype(dtype))) {
      packed.kv = cache.view(whole, 0);  // queries and weights are rounded for it
      expected = bits_of(context, p, packed, o.options);
    }
    expect_same(whole, "cache");
    // A fork that goes its own way, in pages that are shared, copied and new, and used before.
    const int64_t other = cache.create();
    append(other, draw(random, 1, s.kv_len));
    cache.free(other);
    const int64_t fork = cache.fork(whole, draw(random, 0, s.kv_len));
    append(fork, s.kv_len);
    expect_same(fork, "fork");
    expect_same(whole, "forked cache");
  }
}

/// A bias for each token: cut into pieces, every token keeps its own.
TEST_P(Isa, PiecesOfABiasChangeNoBit) {
  Random random(13);
  Context context({.threads = 1, .isa = GetParam()});
  const Sizes s{120, 4, 2, 16, 16, 150};  // two tiles of tokens
  Problem p;
  test::fill_problem(random, p, s);
  p.bias = {random, DType::f32, {s.q_heads, s.q_len, s.kv_len}, false};
  float next = 0;
  p.bias.fill([&] { return std::sin(next += 1.0f); });
  p.item.bias = p.bias.view();
  p.item.q_start.reset();
  const auto expected = bits_of(context, p, p.item, {});
  p.out.fill([] { return 99.0f; });
  std::vector<AttendItem> batch;
  for (int64_t t = 0; t < s.q_len; ++t) {
    batch.push_back(piece_of(p.item, s.kv_len - s.q_len, t, 1));
  }
  attend(context, batch, {});
  ASSERT_EQ(bits(p), expected);
}

TEST_P(Isa, ASteadyStateAllocatesNothing) {
  Context context({.threads = 3, .isa = GetParam()});
  Random random(9);
  Problem p;
  test::fill_problem(random, p, {4, 8, 2, 64, 64, 5000});
  const AttendOptions options{.mask = {.window = 3000, .sink_tokens = 4}, .softcap = 20.0f};
  attend(context, std::span(&p.item, 1), options);
  EXPECT_EQ(0, test::count_allocations([&] {
              for (int i = 0; i < 5; ++i) attend(context, std::span(&p.item, 1), options);
            }));
}

}  // namespace
}  // namespace gqa
