// A layer's attention on a few windows of text at a time, beside the output that is wanted of it.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "regroup/adam.h"
#include "regroup/block_attention.h"
#include "regroup/mlp_block.h"
#include "regroup/scratch_matrix.h"
#include "regroup/token_weights.h"

namespace gqa {

/// The matrices that are learned, each a part.
Parts parts_of(BlockWeights& weights);
ConstParts parts_of(const BlockWeights& weights);

/// What a layer's attention should put out, on all rows of a text, which lie elsewhere.
struct BlockGoal {
  RowsRef inputs;             ///< [tokens, inputs], see Heads
  RowsRef target;             ///< [tokens, width]
  TokenWeights weights = {};  ///< of errors of the output
  /// The layer's MLP, to match what it makes of the output, too; or null.
  MlpBlock* mlp = nullptr;
  std::optional<RowsRef> hidden = {};  ///< [tokens, width], with mlp: what the output is added to
  ScratchPlace place = {};             ///< of what is as long as the text
};

class WindowedBlock {
 public:
  /// `windows`: at a time, at most. Keeps references.
  WindowedBlock(Context::Impl& context, const BlockShape& shape, const BlockGoal& goal,
                int64_t windows);

  /// The squared error of the output on these windows, tokens weighed; with an MLP, plus that
  /// behind it, tokens weighed by the size of what is wanted there, all so that what is wanted at
  /// both places counts alike. What gradient() refers to.
  double run(const BlockWeights& weights, std::span<const int64_t> windows);
  /// Of half of it.
  BlockWeights gradient() const;
  /// The square of what is wanted on the windows of the last run, weighed as its errors.
  double wanted() const;
  /// run() on any number of windows, relative to the squares of what is wanted there.
  double error(const BlockWeights& weights, std::span<const int64_t> windows);

 private:
  void take(std::span<const int64_t> windows);
  void look_behind_mlp();

  const BlockShape& shape_;
  BlockGoal goal_;
  ScratchRows behind_;           ///< [tokens, width]: what is wanted behind the MLP
  TokenWeights behind_weights_;  ///< of errors there
  double weight_ = 0;            ///< of all of them
  BlockShape some_;
  Rows some_inputs_, some_target_, residual_;
  Rows some_hidden_, some_behind_, residual_behind_;
  TokenWeights some_weights_, some_behind_weights_;
  std::optional<BlockAttention> block_;
};

}  // namespace gqa
