// Sequences for approximate attention, and what is to come out of it in double precision.
#pragma once

#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "gqa/approx.h"
#include "support/cached_case.h"

namespace gqa::test {

/// All tokens of a sequence, for one layer: dense f32.
struct Tokens {
  int64_t n, q_heads, kv_heads, head_dim, v_head_dim;
  std::vector<float> q, k, v;

  Tokens(Random& random, int64_t len, const Heads& heads, int64_t dim, int64_t v_dim)
      : n(len),
        q_heads(heads.q_heads),
        kv_heads(heads.kv_heads),
        head_dim(dim),
        v_head_dim(v_dim),
        q(normals(random, len * q_heads * dim)),
        k(normals(random, len * kv_heads * dim)),
        v(normals(random, len * kv_heads * v_dim)) {}

  float* key(int64_t s, int64_t g) { return k.data() + (s * kv_heads + g) * head_dim; }
  const float* key(int64_t s, int64_t g) const { return k.data() + (s * kv_heads + g) * head_dim; }
  float* query(int64_t t, int64_t h) { return q.data() + (t * q_heads + h) * head_dim; }
  const float* query(int64_t t, int64_t h) const { return q.data() + (t * q_heads + h) * head_dim; }
  float* value(int64_t s, int64_t g) { return v.data() + (s * kv_heads + g) * v_head_dim; }
  const float* value(int64_t s, int64_t g) const {
    return v.data() + (s * kv_heads + g) * v_head_dim;
  }
  KvShape shape(KvDType t = KvDType::f32) const { return {{kv_heads}, head_dim, v_head_dim, t}; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

  /// Tokens from `begin` on are those of `other`.
  void replace(int64_t begin, const Tokens& other) {
    const auto copy = [&](std::vector<float>& to, const std::vector<float>& from) {
      const auto first = std::ssize(to) / n * begin;
      std::copy(from.begin() + first, from.end(), to.begin() + first);
    };
    copy(q, other.q);
    copy(k, other.k);
    copy(v, other.v);
  }

 private:
  static std::vector<float> normals(Random& random, int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(count));
    for (float& value : x) value = normal(random);
    return x;
  }
};

/// The KV head of each query head.
inline std::vector<int64_t> kv_head_of(const Heads& heads) {
  std::vector<int64_t> result;
  for (int64_t h = 0; h < heads.q_heads; ++h) {
    int64_t g = 0;
    if (heads.group_offsets.empty()) g = h / (heads.q_heads / heads.kv_heads);
    while (!heads.group_offsets.empty() && heads.group_offsets[static_cast<size_t>(g + 1)] <= h) {
      ++g;
    }
    result.push_back(g);
  }
  return result;
}

inline void append(Context& context, KvCache& cache, int64_t id, const Tokens& x, int64_t begin,
                   int64_t end, int64_t layer = 0) {
  cache.append(context, id, layer,
               {x.key(begin, 0), DType::f32, {end - begin, x.kv_heads, x.head_dim}},
               {x.value(begin, 0), DType::f32, {end - begin, x.kv_heads, x.v_head_dim}});
}

/// An item of tokens [begin, end); out [end - begin][q_heads][v_head_dim].
inline Approximation::Item item_of(int64_t id, const Tokens& x, int64_t begin, int64_t end,
                                   float* out) {
  const int64_t n = end - begin;
  return {id,
          {x.query(begin, 0), DType::f32, {n, x.q_heads, x.head_dim}},
          {out, DType::f32, {n, x.q_heads, x.v_head_dim}}};
}

/// Appends tokens [begin, end), `chunk` at a time, and attends to each lot. Returns their outputs.
inline std::vector<float> run(Context& context, Approximation& approximation, KvCache& cache,
                              int64_t id, const Tokens& x, const Heads& heads, int64_t begin,
                              int64_t end, int64_t chunk) {
  const int64_t row = x.q_heads * x.v_head_dim;
  std::vector<float> out(static_cast<size_t>((end - begin) * row), 99.0f);
  for (int64_t t = begin; t < end; t += chunk) {
    const int64_t stop = std::min(end, t + chunk);
    append(context, cache, id, x, t, stop);
    const auto item = item_of(id, x, t, stop, out.data() + (t - begin) * row);
    approximation.attend(context, cache, 0, std::span(&item, 1),
                         {.group_offsets = heads.group_offsets});
  }
  return out;
}
/// A fresh sequence, all in one call where nothing else is said.
inline std::vector<float> run(Context& context, const AttentionSpec& spec, const Tokens& x,
                              const Heads& heads, KvDType t = KvDType::f32, int64_t chunk = 1 << 20,
                              const KeyDirections& directions = {}) {
  KvCache cache(x.shape(t));
  Approximation approximation(spec, cache.shape(), directions);
  const int64_t id = cache.create();
  return run(context, approximation, cache, id, x, heads, 0, x.n, chunk);
}

/// One key that a row weighs, or what stands for several.
struct Term {
  double score;
  double size;   ///< of scale * sum |q k|
  double added;  ///< of what was added to that
  const double* value;
};

/// Values as doubles, [token][kv_heads], for terms to point into.
inline std::vector<std::vector<double>> values_of(const Tokens& x) {
  std::vector<std::vector<double>> values;
  for (int64_t i = 0; i < x.n * x.kv_heads; ++i) {
    const float* v = x.v.data() + i * x.v_head_dim;
    values.emplace_back(v, v + x.v_head_dim);
  }
  return values;
}

/// Rows of softmax over terms, as the oracle reports them.
class SoftmaxRows {
 public:
  explicit SoftmaxRows(int64_t dim) : dim_(dim) {}
  void add(const std::vector<Term>& terms) {
    double top = -INFINITY, sum = 0, size = 0, added = 0;
    for (const Term& x : terms) top = std::max(top, x.score);
    std::vector<double> out(static_cast<size_t>(dim_)), weight(static_cast<size_t>(dim_));
    for (const Term& x : terms) {
      const double w = std::exp(x.score - top);
      sum += w;
      size = std::max(size, x.size);
      added = std::max(added, x.added);
      for (size_t d = 0; d < out.size(); ++d) {
        out[d] += w * x.value[d];
        weight[d] += w * std::abs(x.value[d]);
      }
    }
    for (size_t d = 0; d < out.size(); ++d) {
      result_.out.push_back(out[d] / sum);
      result_.value_size.push_back(weight[d] / sum);
    }
    result_.lse.push_back(top + std::log(sum));
    result_.score_size.push_back(size);
    result_.added_size.push_back(added);
  }
  const reference::Result& result() const { return result_; }

 private:
  int64_t dim_;
  reference::Result result_;
};

/// scale * q k and scale * sum |q k|
struct Product {
  double score = 0, size = 0;
};
template <typename Q, typename K>
Product product(const Q* q, const K* k, int64_t dim, double scale) {
  Product p;
  for (int64_t d = 0; d < dim; ++d) {
    p.score += scale * static_cast<double>(q[d]) * static_cast<double>(k[d]);
    p.size += scale * std::abs(static_cast<double>(q[d]) * static_cast<double>(k[d]));
  }
  return p;
}

/// Outputs that were put together from sets of keys: beside what attention may stray, each set's
/// weight is off by its LSE, which is stored in f32, exp() and a quotient.
inline ::testing::AssertionResult close(const Array<3>& out, const Sizes& s, const AttendOptions& o,
                                        const reference::Result& r, const Rounded& rounded = {}) {
  const double u = 0x1p-24;
  size_t row = 0;
  for (int64_t t = 0; t < s.q_len; ++t) {
    for (int64_t h = 0; h < s.q_heads; ++h, ++row) {
      for (int64_t d = 0; d < s.v_head_dim; ++d) {
        const size_t i = row * static_cast<size_t>(s.v_head_dim) + static_cast<size_t>(d);
        const Bound b = bound(s, o, r, row, i, rounded);
        const double lse_size =
            r.score_size[row] + r.added_size[row] + std::log(1.0 + static_cast<double>(s.kv_len));
        const double merged = 2 * (b.lse + 2 * u * lse_size) + 10 * u;
        const double tolerance = b.out + merged * r.value_size[i];
        const double got = out.get({t, h, d});
        const double allowed = tolerance + rounding(out.dtype, std::abs(r.out[i]) + tolerance);
        if (!(std::abs(got - r.out[i]) <= allowed)) {
          return ::testing::AssertionFailure()
                 << "out[" << t << "," << h << "," << d << "] is " << got << ", expected "
                 << r.out[i] << " within " << allowed;
        }
      }
    }
  }
  return ::testing::AssertionSuccess();
}
inline ::testing::AssertionResult close(const std::vector<float>& out, const Tokens& x,
                                        const reference::Result& r, const Rounded& rounded = {}) {
  Random random(0);
  Array<3> rows(random, DType::f32, {x.n, x.q_heads, x.v_head_dim}, true);
  size_t i = 0;
  rows.fill([&] { return out[i++]; });
  return close(rows, {x.n, x.q_heads, x.kv_heads, x.head_dim, x.v_head_dim, x.n}, {}, r, rounded);
}

/// Which keys each token and KV head attends to, told by values that are one-hot (so that
/// v_head_dim is n). Scores must be small enough for no weight to vanish.
inline std::vector<std::vector<bool>> seen_keys(const Tokens& x, const Heads& heads,
                                                const std::vector<float>& out) {
  std::vector<std::vector<bool>> seen(static_cast<size_t>(x.n * x.kv_heads));
  const std::vector<int64_t> kv_head = kv_head_of(heads);
  for (int64_t t = 0; t < x.n; ++t) {
    for (int64_t h = 0; h < x.q_heads; ++h) {
      const float* row = out.data() + (t * x.q_heads + h) * x.n;
      std::vector<bool> keys(static_cast<size_t>(x.n));
      for (int64_t s = 0; s < x.n; ++s) keys[static_cast<size_t>(s)] = row[s] > 0;
      auto& of_head = seen[static_cast<size_t>(t * x.kv_heads + kv_head[static_cast<size_t>(h)])];
      EXPECT_TRUE(of_head.empty() || of_head == keys) << "heads of a group share their keys";
      of_head = std::move(keys);
    }
  }
  return seen;
}
inline void make_one_hot(Tokens& x) {
  std::fill(x.v.begin(), x.v.end(), 0.0f);
  for (int64_t s = 0; s < x.n; ++s) {
    for (int64_t g = 0; g < x.kv_heads; ++g) x.value(s, g)[s] = 1.0f;
  }
}

}  // namespace gqa::test
