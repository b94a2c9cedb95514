// A layer's attention on a few windows of text at a time, beside the output that is wanted of it.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "regroup/adam.h"
#include "regroup/block_attention.h"

namespace gqa {

/// The matrices that are learned, each a part.
Parts parts_of(BlockWeights& weights);
ConstParts parts_of(const BlockWeights& weights);

class WindowedBlock {
 public:
  /// `windows`: at a time, at most. Keeps references; all rows of all windows: inputs see Heads,
  /// target [tokens, width].
  WindowedBlock(Context::Impl& context, const BlockShape& shape, const Rows& inputs,
                const Rows& target, int64_t windows);

  /// The squared error of the output on these windows, summed; what gradient() refers to.
  double run(const BlockWeights& weights, std::span<const int64_t> windows);
  /// Of half of it.
  BlockWeights gradient() const { return block_->pullback(residual_); }
  /// The squared output that is wanted on some windows, as many as there may be.
  double wanted(std::span<const int64_t> windows) const;
  /// run() on any number of windows, relative to wanted().
  double error(const BlockWeights& weights, std::span<const int64_t> windows);

 private:
  void take(std::span<const int64_t> windows);

  const BlockShape& shape_;
  const Rows& inputs_;
  const Rows& target_;
  BlockShape some_;
  Rows some_inputs_, some_target_, residual_;
  std::optional<BlockAttention> block_;
};

}  // namespace gqa
