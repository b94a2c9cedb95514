// Problems whose keys and values lie in a KvCache.
#pragma once

#include "gqa/kv_cache.h"
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

}  // namespace gqa::test
