// Random attention problems.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "core/checked.h"
#include "gqa/attention.h"
#include "support/mask_case.h"
#include "support/random_array.h"

namespace gqa::test {

struct Heads {
  int64_t q_heads, kv_heads;
  std::vector<int32_t> group_offsets;  ///< empty: even groups
};

inline Heads draw_heads(Random& random) {
  Heads heads{0, draw(random, 1, 4), {}};
  if (draw(random, 0, 3) != 0) {
    heads.q_heads = heads.kv_heads * pick<int64_t>(random, {1, 1, 2, 3, 4, 5, 6, 7, 8, 12});
    return heads;
  }
  heads.group_offsets = {0};
  for (int64_t g = 0; g < heads.kv_heads; ++g) {
    heads.group_offsets.push_back(heads.group_offsets.back() +
                                  static_cast<int32_t>(draw(random, 1, 7)));
  }
  heads.q_heads = heads.group_offsets.back();
  return heads;
}

struct Sizes {
  int64_t q_len, q_heads, kv_heads, head_dim, v_head_dim, kv_len;
};

/// Sizes that are mostly odd, with at most about `budget` multiply-adds.
inline Sizes draw_sizes(Random& random, int64_t budget, const Heads& heads) {
  while (true) {
    Sizes s{};
    s.q_heads = heads.q_heads;
    s.kv_heads = heads.kv_heads;
    s.head_dim = pick<int64_t>(random, {draw(random, 1, 40), 8, 16, 64, 80, 128, 192, 256});
    s.v_head_dim = draw(random, 0, 1) ? s.head_dim : draw(random, 1, 70);
    s.q_len = pick<int64_t>(random, {0, 1, 1, 1, 2, draw(random, 3, 17), draw(random, 18, 120)});
    s.kv_len =
        pick<int64_t>(random, {0, 1, 63, 64, 65, draw(random, 2, 200), draw(random, 200, 900), 1023,
                               1024, 1025, draw(random, 1025, 2600)});
    if (s.q_len * s.q_heads * s.kv_len * (s.head_dim + s.v_head_dim) <= budget) return s;
  }
}
inline Sizes draw_sizes(Random& random, int64_t budget) {
  const int64_t kv_heads = draw(random, 1, 4);
  return draw_sizes(random, budget,
                    {kv_heads * pick<int64_t>(random, {1, 2, 3, 5, 7, 12}), kv_heads, {}});
}

/// Options with the memory that they point into.
struct Options {
  std::vector<float> alibi, sinks;
  std::vector<int32_t> group_offsets;
  AttendOptions options;

  Options() = default;
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;
};

/// Every feature in some of the cases, in all combinations; masks with sizes around `len`.
inline void draw_options(Random& random, const Heads& heads, int64_t len, Options& o) {
  std::normal_distribution<float> normal;
  const auto per_head = [&](float scale) {
    std::vector<float> values(static_cast<size_t>(heads.q_heads));
    for (float& x : values) x = scale * normal(random);
    return values;
  };
  if (draw(random, 0, 3) == 0) o.alibi = per_head(pick(random, {0.01f, 0.3f}));
  if (draw(random, 0, 3) == 0) {
    o.sinks = per_head(pick(random, {1.0f, 8.0f}));
    if (draw(random, 0, 1)) o.sinks.front() = -std::numeric_limits<float>::infinity();
  }
  o.group_offsets = heads.group_offsets;
  o.options.scale = draw(random, 0, 3) ? std::nullopt : std::optional(0.37f);
  o.options.mask = draw_mask(random, len);
  o.options.softcap = draw(random, 0, 3) ? 0.0f : pick(random, {1.0f, 30.0f});
  o.options.alibi = o.alibi;
  o.options.sinks = o.sinks;
  o.options.group_offsets = o.group_offsets;
}

/// One item with the memory that it points into.
struct Problem {
  Array<3> q, out, bias;
  Array<4> k, v;
  Array<2> lse;
  std::vector<int32_t> pages;
  std::vector<uint64_t> selected;
  AttendItem item;
};

/// Whether an item's selection lets token t see key s in KV head g.
inline bool is_selected(const AttendItem& item, int64_t t, int64_t g, int64_t s) {
  const KeySelection& x = item.selected;
  return !x.words ||
         (x.words[t * x.token_stride + g * x.head_stride + s / 64] >> (s % 64) & 1) != 0;
}

inline DType draw_dtype(Random& random) {
  return pick(random, {DType::f32, DType::f32, DType::f16, DType::bf16});
}

/// Signed inputs; sometimes peaked (large queries), sometimes all keys offset so far that scores
/// overflow exp() unless the maximum is subtracted.
inline void fill_inputs(Random& random, Problem& p) {
  std::normal_distribution<float> normal;
  const float peak = pick(random, {0.5f, 1.0f, 4.0f});
  const float offset = pick(random, {0.0f, 0.0f, 1.0f, -1.0f});
  const float shift = offset * 300.0f / std::sqrt(static_cast<float>(p.q.shape[2]));
  p.q.fill([&] { return peak * normal(random) + (offset != 0.0f ? 1.0f : 0.0f); });
  p.k.fill([&] { return normal(random) + shift; });
  p.v.fill([&] { return normal(random) + 0.5f; });
}

/// A bias of some broadcast shape; a part of it masks.
inline void fill_bias(Random& random, Problem& p, const Sizes& s) {
  const auto size = [&](int64_t full) { return draw(random, 0, 2) ? full : 1; };
  p.bias = {random,
            draw_dtype(random),
            {size(s.q_heads), size(s.q_len), size(s.kv_len)},
            draw(random, 0, 1) == 0};
  std::normal_distribution<float> normal;
  const int64_t masked = pick<int64_t>(random, {0, 20, 97});  // of 100
  p.bias.fill([&] {
    return draw(random, 0, 99) < masked ? -std::numeric_limits<float>::infinity()
                                        : 2.0f * normal(random);
  });
  p.item.bias = p.bias.view();
}

/// A selection for each token and KV head, or one for all of either: whole blocks, single keys, or
/// some of both, so that blocks and chunks without any occur.
inline void fill_selection(Random& random, Problem& p, const Sizes& s) {
  const int64_t row = ceil_div(s.kv_len, 64) + draw(random, 0, 2);
  const int64_t head_stride = draw(random, 0, 2) ? row : 0;
  const int64_t token_stride = draw(random, 0, 2) ? row * s.kv_heads : 0;
  p.selected.resize(static_cast<size_t>(std::max<int64_t>(1, s.q_len) * s.kv_heads * row));
  const int64_t kept = pick<int64_t>(random, {1, 10, 60, 95});  // of 100
  const bool keys = draw(random, 0, 1) != 0;
  for (uint64_t& word : p.selected) {
    word = draw(random, 0, 99) < kept ? ~uint64_t{0} : 0;
    if (keys) word &= random();
  }
  p.item.selected = {p.selected.data(), token_stride, head_stride};
}

/// Keys before first_key are gone: their pages may be anything, their memory, too.
inline void forget_keys(Random& random, Problem& p, int64_t first_key) {
  auto& kv = std::get<StridedKv>(p.item.kv);
  kv.first_key = first_key;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int64_t page_size = p.k.shape[1];
  for (int64_t s = 0; s < first_key; ++s) {
    const int64_t logical = s / page_size;
    const int64_t page = p.pages.empty() ? logical : p.pages[static_cast<size_t>(logical)];
    for (int64_t g = 0; g < p.k.shape[2]; ++g) {
      for (int64_t d = 0; d < p.k.shape[3]; ++d) p.k.set({page, s % page_size, g, d}, nan);
      for (int64_t d = 0; d < p.v.shape[3]; ++d) p.v.set({page, s % page_size, g, d}, nan);
    }
  }
  if (p.pages.empty() || draw(random, 0, 1)) return;
  std::fill_n(p.pages.begin(), first_key / page_size, -1);
}

/// of: the type of all arrays that are read, if it is not to be drawn.
inline void fill_problem(Random& random, Problem& p, const Sizes& s, std::optional<DType> of = {}) {
  const bool dense = draw(random, 0, 2) == 0;
  const bool paged = draw(random, 0, 2) == 0;
  const int64_t page_size =
      paged ? pick<int64_t>(random, {1, 7, 16, 64}) : std::max<int64_t>(1, s.kv_len);
  const int64_t logical = ceil_div(s.kv_len, page_size);
  const int64_t physical = logical + (paged ? draw(random, 0, 3) : 0);
  const auto dtype = [&] { return of ? *of : draw_dtype(random); };
  const DType stored = dtype();
  p.q = {random, dtype(), {s.q_len, s.q_heads, s.head_dim}, dense};
  p.k = {random, stored, {physical, page_size, s.kv_heads, s.head_dim}, dense};
  p.v = {random,
         draw(random, 0, 3) ? stored : dtype(),
         {physical, page_size, s.kv_heads, s.v_head_dim},
         dense};
  p.out = {random, draw_dtype(random), {s.q_len, s.q_heads, s.v_head_dim}, dense};
  p.lse = {random, DType::f32, {s.q_len, s.q_heads}, dense};
  if (paged) {
    p.pages.resize(static_cast<size_t>(physical));
    std::iota(p.pages.begin(), p.pages.end(), 0);
    std::shuffle(p.pages.begin(), p.pages.end(), random);
    p.pages.resize(static_cast<size_t>(logical));
  }
  fill_inputs(random, p);
  const StridedKv kv{p.k.view(), p.v.view(), p.pages, 0, s.kv_len};
  p.item = {.q = p.q.view(), .kv = kv, .out = p.out.mut(), .lse = p.lse.mut()};
  if (draw(random, 0, 4) == 0) forget_keys(random, p, draw(random, 0, s.kv_len));
  if (draw(random, 0, 3) == 0) p.item.q_start = draw(random, -3, s.kv_len + 3);
  if (draw(random, 0, 3) == 0) p.item.prefix = draw(random, 0, s.kv_len + 2);
  if (draw(random, 0, 3) == 0) fill_bias(random, p, s);
  if (draw(random, 0, 3) == 0) fill_selection(random, p, s);
}

inline std::string describe(const Sizes& s) {
  return "q_len " + std::to_string(s.q_len) + ", heads " + std::to_string(s.q_heads) + "/" +
         std::to_string(s.kv_heads) + ", head_dim " + std::to_string(s.head_dim) + "/" +
         std::to_string(s.v_head_dim) + ", kv_len " + std::to_string(s.kv_len);
}
inline std::string describe(const Sizes& s, const Options& o, const AttendItem& item) {
  const Mask& m = o.options.mask;
  return describe(s) + (m.causal ? ", causal" : "") + ", window " + std::to_string(m.window) +
         ", block " + std::to_string(m.block) + ", sink tokens " + std::to_string(m.sink_tokens) +
         ", prefix " + std::to_string(item.prefix) + ", softcap " +
         std::to_string(o.options.softcap) + (o.alibi.empty() ? "" : ", alibi") +
         (o.sinks.empty() ? "" : ", sinks") + (item.bias.data ? ", bias" : "") +
         (item.selected.words ? ", selected keys" : "") +
         (o.group_offsets.empty() ? "" : ", unequal groups");
}

}  // namespace gqa::test
