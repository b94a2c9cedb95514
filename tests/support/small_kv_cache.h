// A cache of small heads, filled with tokens that are all of one value.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "gqa/kv_cache.h"

namespace gqa::test {

struct SmallKvCache {
  Context context{{.threads = 1}};
  KvCache cache;

  explicit SmallKvCache(std::vector<int64_t> kv_heads, int64_t max_pages = 0,
                        KvDType dtype = KvDType::f32)
      : cache({.kv_heads = std::move(kv_heads), .head_dim = 2, .v_head_dim = 3, .dtype = dtype},
              max_pages) {}

  void append_layer(int64_t sequence, int64_t layer, int64_t n, float value) {
    const int64_t heads = cache.shape().kv_heads[static_cast<size_t>(layer)];
    const std::vector<float> x(static_cast<size_t>(n * heads * 3), value);
    cache.append(context, sequence, layer, {x.data(), DType::f32, {n, heads, 2}},
                 {x.data(), DType::f32, {n, heads, 3}});
  }
  void append(int64_t sequence, int64_t n, float value) {
    for (int64_t l = 0; l < cache.shape().n_layers(); ++l) append_layer(sequence, l, n, value);
  }
  int64_t filled(int64_t n, float value) {
    const int64_t sequence = cache.create();
    append(sequence, n, value);
    return sequence;
  }
  /// The value of a token of layer 0.
  float at(int64_t sequence, int64_t token) const {
    std::vector<float> k(static_cast<size_t>(cache.shape().kv_heads[0] * 2));
    std::vector<float> v(static_cast<size_t>(cache.shape().kv_heads[0] * 3));
    cache.read(sequence, 0, token, 1, k.data(), v.data());
    for (const float x : k) EXPECT_EQ(x, v.front());
    for (const float x : v) EXPECT_EQ(x, v.front());
    return v.front();
  }
};

}  // namespace gqa::test
