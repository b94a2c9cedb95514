// Problems whose keys and values lie in a KvCache.
#pragma once

#include "gqa/kv_cache.h"
#include "support/attention_bound.h"
#include "support/attention_case.h"

namespace gqa::test {

inline constexpr KvDType kv_dtypes[] = {KvDType::f32, KvDType::f16, KvDType::bf16, KvDType::int8,
                                        KvDType::int4};

/// A problem with dense f32 keys, values and outputs.
inline void fill_dense(Random& random, Problem& p, const Sizes& s) {
  fill_problem(random, p, s);
  p.pages.clear();
  p.k = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.head_dim}, true};
  p.v = {random, DType::f32, {1, s.kv_len, s.kv_heads, s.v_head_dim}, true};
  p.out = {random, DType::f32, p.out.shape, true};
  p.item.out = p.out.mut();
  fill_inputs(random, p);
}

/// A cache of one layer and one sequence that holds p's dense keys and values.
inline KvCache cache_of(Context& context, const Problem& p, KvDType t) {
  const auto& k = p.k.shape;
  KvCache cache({.kv_heads = {k[2]}, .head_dim = k[3], .v_head_dim = p.v.shape[3], .dtype = t});
  cache.append(context, cache.create(), 0, {p.k.memory.data(), DType::f32, {k[1], k[2], k[3]}},
               {p.v.memory.data(), DType::f32, {k[1], k[2], p.v.shape[3]}});
  return cache;
}

/// Products of a quantised cache's integers with queries and weights that were rounded to 16 bits
/// (kernels/split_row.h): an element is off by half a step, a 2 * 32639th of the row's largest, and
/// by the rounding of the quotient. The largest weight of a row is 1 while its block is added, and
/// at the end the sum is at least that; an integer times its scale is at most the largest value.
///
/// Where bf16 is taken as stored, queries and weights are rounded to it, if they are not bf16, each
/// by at most 2^-8 of itself; and of all weights v_most times that share is what the sum has.
inline Rounded rounding_of(KvDType t, const Problem& p, const Sizes& s, const AttendOptions& o) {
  const double step = 0.51 / 32639;
  const double scale = o.scale.value_or(1 / std::sqrt(static_cast<float>(s.head_dim)));
  double q_most = 0, k_most = 0, v_most = 0;
  p.q.for_each([&](float x) { q_most = std::max<double>(q_most, std::abs(x)); });
  p.v.for_each([&](float x) { v_most = std::max<double>(v_most, std::abs(x)); });
  for (int64_t key = 0; key < s.kv_len; ++key) {
    for (int64_t h = 0; h < s.kv_heads; ++h) {
      double sum = 0;
      for (int64_t d = 0; d < s.head_dim; ++d) sum += std::abs(p.k.get({0, key, h, d}));
      k_most = std::max(k_most, sum);
    }
  }
  const double score = std::abs(scale) * q_most * k_most;
  if (is_quantised(t)) return {step * score, step * static_cast<double>(s.kv_len) * v_most};
  return {p.q.dtype == DType::bf16 ? 0.0 : 0x1p-8 * score, 1.01 * 0x1p-8 * v_most};
}

/// Puts what the cache holds in place of p's keys and values, and makes p read that.
inline void read_back(const KvCache& cache, Problem& p, int64_t kv_len) {
  cache.read(0, 0, 0, kv_len, reinterpret_cast<float*>(p.k.memory.data()),
             reinterpret_cast<float*>(p.v.memory.data()));
  p.item.kv = StridedKv{p.k.view(), p.v.view(), {}, 0, kv_len};
}

}  // namespace gqa::test
