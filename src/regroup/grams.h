// How a layer's heads relate to each other, whatever basis each is written in.
#pragma once

#include <cstdint>
#include <vector>

#include "regroup/heads.h"

namespace gqa {

/// Inner products of a layer's heads under C = E[x x^T] of its inputs x. Everything that merges,
/// compares or prices heads without text can be said in these. With n KV heads:
struct HeadGrams {
  int64_t head_dim = 0;
  std::vector<int64_t> q_begin;  ///< as in Heads
  /// Per plane, [n, n] Hermitian: E[z_a conj(z_b)] of the complex keys z.
  std::vector<ComplexMatrix> keys;
  /// [head_dim / 2, q_heads]: E|q|^2 of the complex queries.
  Matrix queries;
  /// [n * head_dim, n * head_dim]: V_a C V_b^T.
  Matrix values;
  /// Per query head, [head_dim, head_dim]: O^T O.
  std::vector<Matrix> outputs;

  int64_t kv_heads() const { return static_cast<int64_t>(q_begin.size()) - 1; }
  /// V_a C V_b^T.
  auto value_block(int64_t a, int64_t b) const {
    return values.block(a * head_dim, b * head_dim, head_dim, head_dim);
  }
  /// The sum of O^T O over the query heads that read KV head g.
  Matrix outputs_of(int64_t g) const;
  /// sqrt of E|q|^2 of a plane, summed over the query heads that read KV head g.
  double query_weight(int64_t plane, int64_t g) const;
};

/// Under a diagonal C; `variance` [inputs].
HeadGrams make_grams(const Heads& heads, const Vector& variance);
/// Under any C [inputs, inputs].
HeadGrams make_grams(const Heads& heads, const Matrix& moments);

/// Of a layer of a checkpoint, under assumed_variance().
HeadGrams load_grams(const ModelConfig& config, const Checkpoint& checkpoint, int64_t layer);

/// What is known of a layer's inputs without any text: they leave a norm with these weights, so
/// that each is taken to vary by its weight's square, independently of the others. A 1 for the
/// input that biases multiply.
Vector assumed_variance(const Tensor& norm_weight, bool has_biases);

}  // namespace gqa
