// One layer's attention on calibration text, with its derivatives.
#pragma once

#include "kernels/context.h"
#include "model/rope.h"
#include "regroup/calibration.h"
#include "regroup/heads.h"

namespace gqa {

/// A layer's projections in f32, as Heads has them; or a change of them, or a gradient.
struct BlockWeights {
  Rows q, k, v, o;

  static BlockWeights zeros_like(const BlockWeights& other);
  BlockWeights& add(float factor, const BlockWeights& other);  ///< this += factor * other
  double dot(const BlockWeights& other) const;
};

BlockWeights block_weights(const Heads& heads);
/// The heads with these weights.
Heads with_weights(Heads heads, const BlockWeights& weights);

/// What stays the same while a layer's weights change: heads, windows, angles, inputs.
struct BlockShape {
  int64_t head_dim = 0;
  std::vector<int64_t> q_begin;       ///< as in Heads
  std::vector<int64_t> window_begin;  ///< rows of each window of text, and the end
  int64_t mask_window = 0;            ///< ModelConfig::window
  Rows cosines, sines;                ///< [longest window, head_dim / 2]

  /// `planes`: as in Heads.
  BlockShape(const ModelConfig& config, const CalibrationWindows& text,
             std::vector<int64_t> q_begin, const std::vector<int64_t>& planes = {});
  BlockShape(const ModelConfig& config, const CalibrationWindows& text, const Heads& heads)
      : BlockShape(config, text, heads.q_begin, heads.planes) {}
  int64_t q_heads() const { return q_begin.back(); }
  int64_t kv_heads() const { return std::ssize(q_begin) - 1; }
  int64_t windows() const { return std::ssize(window_begin) - 1; }
  int64_t kv_head(int64_t q_head) const;
};

/// Attention probabilities are kept, in f32: 4 bytes * q_heads * the sum of windows squared.
class BlockAttention {
 public:
  /// Keeps references. inputs: [tokens, inputs], see Heads.
  BlockAttention(Context::Impl& context, const BlockShape& shape, const Rows& inputs);

  /// Runs the layer with these weights; what follows refers to this run.
  void run(const BlockWeights& weights);

  /// [tokens, q_heads * head_dim]: attention's result before the output projection.
  const Rows& attended() const { return attended_; }
  /// [tokens, width].
  Rows output() const;
  /// Square: a row a query of the window, the keys that it does not see 0.
  const Rows& probabilities(int64_t window, int64_t h) const {
    return probabilities_[static_cast<size_t>(window * shape_.q_heads() + h)];
  }
  /// The change of the output, to first order, for a change of the weights.
  Rows tangent(const BlockWeights& change) const;
  /// The gradient of sum(cotangent * output) by the weights; cotangent [tokens, width].
  BlockWeights pullback(const Rows& cotangent) const;
  /// E[k k^T] of the keys of KV head g after rotation: [head_dim, head_dim].
  Matrix key_moments(int64_t g) const;
  /// E[y y^T] of the inputs averaged by the attention of query head h: [inputs, inputs].
  Matrix averaged_moments(int64_t h) const;

 private:
  /// Gradients by rotated queries, keys and values.
  struct Projections {
    Rows q, k, v;
  };
  Projections project_back(const Rows& cotangent) const;
  void rotate(Rows& x, bool back) const;
  void attend_head(int64_t window, int64_t h);
  void head_tangent(int64_t window, int64_t h, const Projections& change, Rows& out) const;
  void head_pullback(int64_t window, int64_t h, const Rows& by_attended, Projections& gradients,
                     Rows& by_keys, Rows& by_values) const;
  template <typename Body>
  void for_heads(const Body& body) const;

  Context::Impl& context_;
  const BlockShape& shape_;
  const Rows& inputs_;
  float scale_;
  Rows q_, k_, v_;  ///< projected; q and k rotated, q times the scale
  Rows o_;          ///< the output projection
  Rows attended_;
  std::vector<Rows> probabilities_;  ///< [window * q_heads + h], square
};

}  // namespace gqa
