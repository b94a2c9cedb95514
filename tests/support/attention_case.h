// Random attention problems, and how far a right answer may be from the oracle's.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/checked.h"
#include "core/half.h"
#include "gqa/attention.h"
#include "reference/attention.h"

namespace gqa::test {

using Random = std::mt19937_64;

inline int64_t draw(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

template <typename T>
T pick(Random& random, std::initializer_list<T> values) {
  return values.begin()[draw(random, 0, static_cast<int64_t>(values.size()) - 1)];
}

/// An array in memory of its own, its axes in a random order with gaps between; the gaps are NaN,
/// so that reading beside an element shows.
template <int N>
struct Array {
  std::vector<std::byte> memory;
  DType dtype = DType::f32;
  std::array<int64_t, N> shape{}, strides{};

  Array() = default;
  Array(Random& random, DType t, const std::array<int64_t, N>& s, bool dense) : dtype(t), shape(s) {
    std::array<int, N> order;
    std::iota(order.begin(), order.end(), 0);
    if (!dense) std::shuffle(order.begin(), order.end(), random);
    int64_t step = 1;
    for (int i = N - 1; i >= 0; --i) {
      const auto axis = static_cast<size_t>(order[static_cast<size_t>(i)]);
      strides[axis] = step;
      step *= std::max<int64_t>(shape[axis], 1);
      if (!dense) step += draw(random, 0, 2);
    }
    memory.resize(static_cast<size_t>(step * dtype_bytes(t)));
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (int64_t i = 0; i < step; ++i) store_element(memory.data(), t, i, nan);
  }

  int64_t offset(const std::array<int64_t, N>& at) const {
    int64_t o = 0;
    for (size_t i = 0; i < N; ++i) o += at[i] * strides[i];
    return o;
  }
  float get(const std::array<int64_t, N>& at) const {
    return load_element(memory.data(), dtype, offset(at));
  }
  void set(const std::array<int64_t, N>& at, float x) {
    store_element(memory.data(), dtype, offset(at), x);
  }
  template <typename F>
  void fill(F&& value) {
    std::array<int64_t, N> at{};
    if (std::any_of(shape.begin(), shape.end(), [](int64_t n) { return n == 0; })) return;
    while (true) {
      set(at, value());
      int i = N - 1;
      while (i >= 0 && ++at[static_cast<size_t>(i)] == shape[static_cast<size_t>(i)]) {
        at[static_cast<size_t>(i--)] = 0;
      }
      if (i < 0) return;
    }
  }
  AnyView<N> view() const { return {memory.data(), dtype, shape, strides}; }
  AnyMutView<N> mut() { return {memory.data(), dtype, shape, strides}; }
};

/// One item with the memory that it points into.
struct Problem {
  Array<3> q, out;
  Array<4> k, v;
  Array<2> lse;
  std::vector<int32_t> pages;
  AttendItem item;
};

struct Sizes {
  int64_t q_len, q_heads, kv_heads, head_dim, v_head_dim, kv_len;
};

inline DType draw_dtype(Random& random) {
  return pick(random, {DType::f32, DType::f32, DType::f16, DType::bf16});
}

/// Sizes that are mostly odd, with at most about `budget` multiply-adds.
inline Sizes draw_sizes(Random& random, int64_t budget) {
  while (true) {
    Sizes s{};
    s.kv_heads = draw(random, 1, 4);
    s.q_heads = s.kv_heads * pick<int64_t>(random, {1, 1, 2, 3, 4, 5, 7, 8, 12});
    s.head_dim = pick<int64_t>(random, {draw(random, 1, 40), 8, 16, 64, 80, 128, 192, 256});
    s.v_head_dim = draw(random, 0, 1) ? s.head_dim : draw(random, 1, 70);
    s.q_len = pick<int64_t>(random, {0, 1, 1, 1, 2, draw(random, 3, 17), draw(random, 18, 120)});
    s.kv_len =
        pick<int64_t>(random, {0, 1, 63, 64, 65, draw(random, 2, 200), draw(random, 200, 900), 1023,
                               1024, 1025, draw(random, 1025, 2600)});
    if (s.q_len * s.q_heads * s.kv_len * (s.head_dim + s.v_head_dim) <= budget) return s;
  }
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

inline void fill_problem(Random& random, Problem& p, const Sizes& s) {
  const bool dense = draw(random, 0, 2) == 0;
  const bool paged = draw(random, 0, 2) == 0;
  const int64_t page_size =
      paged ? pick<int64_t>(random, {1, 7, 16, 64}) : std::max<int64_t>(1, s.kv_len);
  const int64_t logical = ceil_div(s.kv_len, page_size);
  const int64_t physical = logical + (paged ? draw(random, 0, 3) : 0);
  const DType stored = draw_dtype(random);
  p.q = {random, draw_dtype(random), {s.q_len, s.q_heads, s.head_dim}, dense};
  p.k = {random, stored, {physical, page_size, s.kv_heads, s.head_dim}, dense};
  p.v = {random,
         draw(random, 0, 3) ? stored : draw_dtype(random),
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
  StridedKv kv{p.k.view(), p.v.view(), p.pages, 0, s.kv_len};
  if (draw(random, 0, 4) == 0) kv.first_key = draw(random, 0, s.kv_len);
  p.item = {p.q.view(), kv, p.out.mut(), p.lse.mut(), std::nullopt};
  if (draw(random, 0, 3) == 0) p.item.q_start = draw(random, -3, s.kv_len + 3);
}

/// How far f32 arithmetic may stray, to first order in u = 2^-24, from the exact result.
///
/// A score is a chain of head_dim multiply-adds on a query that was rounded once when scaled: its
/// error is (head_dim + 2) u A, A = scale * sum |q k|. Subtracting the running maximum rounds by u
/// * 2A, and the maxima's steps telescope to another 2A within chunks and 2A over merges. exp()
/// adds 2u, each rescaling of a block or chunk at most 3u. So a weight is off by e = (head_dim + 8)
/// u A + (2 + 3 n) u, n rescalings, relatively; numerator and denominator both carry e. Sums add
/// one u per term in a chain: 1024 keys of a chunk and the merges. Without FMA each chain step
/// rounds twice.
struct Bound {
  double out, lse;
};
inline Bound bound(const Sizes& s, const reference::Result& r, size_t row, size_t element) {
  const double u = 0x1p-24;
  const double keys = static_cast<double>(s.kv_len);
  const double rescalings = keys / 64 + keys / 1024 + 3;
  const double weight =
      (2 * static_cast<double>(s.head_dim) + 8) * u * r.score_size[row] + (2 + 3 * rescalings) * u;
  const double chain = 2 * (std::min(keys, 1024.0) + keys / 1024 + 3) * u;
  return {1.01 * (2 * weight + 2 * chain + 4 * u) * r.value_size[element] + 1e-37,
          1.01 * (weight + chain + 2 * u * (1 + r.score_size[row] + std::abs(r.lse[row])))};
}

/// What storing x as t may add.
inline double rounding(DType t, double x) {
  switch (t) {
    case DType::f32:
      return 0;
    case DType::f16:
      return std::abs(x) * 0x1p-11 + 0x1p-25;
    case DType::bf16:
      return std::abs(x) * 0x1p-8;
  }
  return 0;
}

/// Compares every output and LSE with the oracle's.
inline ::testing::AssertionResult agrees(const Problem& p, const Sizes& s,
                                         const reference::Result& r) {
  size_t row = 0;
  for (int64_t t = 0; t < s.q_len; ++t) {
    for (int64_t h = 0; h < s.q_heads; ++h, ++row) {
      for (int64_t d = 0; d < s.v_head_dim; ++d) {
        const size_t i = row * static_cast<size_t>(s.v_head_dim) + static_cast<size_t>(d);
        const double tolerance = bound(s, r, row, i).out;
        const double got = p.out.get({t, h, d});
        const double allowed = tolerance + rounding(p.out.dtype, std::abs(r.out[i]) + tolerance);
        if (!(std::abs(got - r.out[i]) <= allowed)) {
          return ::testing::AssertionFailure()
                 << "out[" << t << "," << h << "," << d << "] is " << got << ", expected "
                 << r.out[i] << " within " << allowed;
        }
      }
      const double lse = p.lse.get({t, h});
      const double allowed = bound(s, r, row, 0).lse;
      const bool both_none = std::isinf(r.lse[row]) && lse == r.lse[row];
      if (!both_none && !(std::abs(lse - r.lse[row]) <= allowed)) {
        return ::testing::AssertionFailure()
               << "lse[" << t << "," << h << "] is " << lse << ", expected " << r.lse[row]
               << " within " << allowed;
      }
    }
  }
  return ::testing::AssertionSuccess();
}

inline std::string describe(const Sizes& s) {
  return "q_len " + std::to_string(s.q_len) + ", heads " + std::to_string(s.q_heads) + "/" +
         std::to_string(s.kv_heads) + ", head_dim " + std::to_string(s.head_dim) + "/" +
         std::to_string(s.v_head_dim) + ", kv_len " + std::to_string(s.kv_len);
}

}  // namespace gqa::test
