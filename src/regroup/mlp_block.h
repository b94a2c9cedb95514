// A layer's gated MLP, with its derivative by what it reads.
#pragma once

#include "kernels/context.h"
#include "model/weights.h"
#include "regroup/matrix.h"

namespace gqa {

/// hidden -> hidden + down(silu(gate(n)) * up(n)), n = rms_norm(hidden) * weight (Shazeer 2020): a
/// layer behind its attention, in f32. Its weights (and biases, where it has them) do not change.
class MlpBlock {
 public:
  /// Decodes the layer's weights. Keeps the first reference only.
  MlpBlock(Context::Impl& context, const LayerWeights& layer, double rms_norm_eps);

  /// [tokens, width]; what pullback() refers to.
  Rows run(const Rows& hidden);
  /// The gradient of sum(cotangent * run(hidden)) by hidden; cotangent [tokens, width].
  Rows pullback(const Rows& cotangent) const;

 private:
  struct Affine {
    Rows weight;              ///< [out, in]
    Eigen::RowVectorXf bias;  ///< [out], or empty
  };
  static Affine decoded(const Context::Impl& context, const Linear& linear);
  Rows apply(const Affine& affine, const Rows& x) const;

  Context::Impl& context_;
  float eps_;
  Eigen::RowVectorXf norm_;  ///< [width]
  Affine gate_, up_, down_;
  Rows hidden_, opened_, fed_;  ///< of the last run: what it read, gate(n), up(n)
  Eigen::VectorXf scales_;      ///< likewise, 1 / root mean square of each row
};

}  // namespace gqa
