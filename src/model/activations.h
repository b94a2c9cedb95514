// What a forward pass computes on its way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "gqa/config.h"
#include "kernels/context.h"

namespace gqa {

/// The activations of a batch of rows (tokens), all dense [rows][...].
struct Activations {
  float* hidden;    ///< [width], the residual stream
  float* normed;    ///< [width]
  float* q;         ///< [q_heads * head_dim]
  float* k;         ///< [kv_heads * head_dim]
  float* v;         ///< [kv_heads * head_dim]
  float* attended;  ///< [q_heads * head_dim]
  float* gate;      ///< [mlp_width]
  float* up;        ///< [mlp_width]
  float* cosines;   ///< [head_dim / 2]
  float* sines;     ///< [head_dim / 2]

  Activations(Context::Impl& context, const ModelConfig& c, int64_t rows) {
    int64_t kv_heads = 0;
    for (const int64_t n : c.kv_heads) kv_heads = std::max(kv_heads, n);
    const int64_t q_width = c.q_heads * c.head_dim;
    const int64_t kv_width = kv_heads * c.head_dim;
    const int64_t floats = 2 * c.width + 2 * q_width + 2 * kv_width + 2 * c.mlp_width + c.head_dim;
    float* p = context.scratch<float>(Scratch::activations, rows * floats);
    const auto take = [&](int64_t n) { return std::exchange(p, p + rows * n); };
    hidden = take(c.width);
    normed = take(c.width);
    q = take(q_width);
    k = take(kv_width);
    v = take(kv_width);
    attended = take(q_width);
    gate = take(c.mlp_width);
    up = take(c.mlp_width);
    cosines = take(c.head_dim / 2);
    sines = take(c.head_dim / 2);
  }
};

}  // namespace gqa
