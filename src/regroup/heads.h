// One layer's attention as matrices.
#pragma once

#include <cstdint>
#include <vector>

#include "gqa/config.h"
#include "io/checkpoint.h"
#include "regroup/matrix.h"

namespace gqa {

/// A layer's attention projections in a checkpoint; biases are null where the model has none.
struct AttentionTensors {
  const Tensor *q, *k, *v, *o;
  const Tensor *q_bias, *k_bias, *v_bias;
};

AttentionTensors attention_tensors(const Checkpoint& checkpoint, int64_t layer);

/// Weights of the norm before the layer's attention.
const Tensor& attention_norm(const Checkpoint& checkpoint, int64_t layer);

/// A layer's q, k, v and o, in double. An input is a token's normed hidden state; where the layer
/// has biases a 1 follows it, and the last column of q, k and v is the bias: whatever is linear
/// then holds for biases too (attention weights sum to 1, so that averaged inputs end in 1 as
/// well). The output's own bias is no part of it: nothing here changes it.
struct Heads {
  int64_t head_dim = 0;
  std::vector<int64_t> q_begin;  ///< [kv_heads + 1]: q heads [q_begin[g], q_begin[g + 1]) read g
  std::vector<int64_t> planes;   ///< of the model's rotary planes those it has; empty: all
  Matrix q;                      ///< [q_heads * head_dim, inputs]
  Matrix k;                      ///< [kv_heads * head_dim, inputs]
  Matrix v;                      ///< [kv_heads * head_dim, inputs]
  Matrix o;                      ///< [width, q_heads * head_dim]

  int64_t kv_heads() const { return static_cast<int64_t>(q_begin.size()) - 1; }
  int64_t q_heads() const { return q_begin.back(); }
  int64_t inputs() const { return q.cols(); }

  auto q_of(int64_t h) const { return q.middleRows(h * head_dim, head_dim); }
  auto k_of(int64_t g) const { return k.middleRows(g * head_dim, head_dim); }
  auto v_of(int64_t g) const { return v.middleRows(g * head_dim, head_dim); }
  auto o_of(int64_t h) const { return o.middleCols(h * head_dim, head_dim); }
  auto q_of(int64_t h) { return q.middleRows(h * head_dim, head_dim); }
  auto k_of(int64_t g) { return k.middleRows(g * head_dim, head_dim); }
  auto v_of(int64_t g) { return v.middleRows(g * head_dim, head_dim); }
  auto o_of(int64_t h) { return o.middleCols(h * head_dim, head_dim); }
};

/// The layer as the checkpoint has it.
Heads load_heads(const ModelConfig& config, int64_t layer, const AttentionTensors& tensors);

/// Groups of KV heads, and the layer's heads in the order that they imply: query heads move with
/// their KV head. The result has one KV head a group, all zero, and the query heads (q, o) as they
/// were.
Heads regrouped(const Heads& heads, const HeadGroups& groups);

/// The query heads that read the KV heads of a group, in the order of the group.
std::vector<int64_t> query_heads_of(const Heads& heads, const std::vector<int64_t>& group);

/// A head's planes as complex rows [head_dim / 2, inputs]: plane p pairs row p with row
/// p + head_dim / 2, as rotary embedding does.
ComplexMatrix planes(const Eigen::Ref<const Matrix>& head);
/// The inverse.
Matrix from_planes(const ComplexMatrix& planes);

}  // namespace gqa
