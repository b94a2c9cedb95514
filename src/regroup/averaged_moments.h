// What the attention of each query head averages, on calibration text.
#pragma once

#include <optional>
#include <vector>

#include "regroup/block_attention.h"
#include "regroup/scratch_matrix.h"

namespace gqa {

/// Per query head h of a layer C_h = E[y y^T] of y = sum over s of A_h(t, s) x_s: [inputs, inputs],
/// over all the text. Taken when they are asked for, for as many heads at a time as a bound on
/// memory allows, and kept in scratch files where all of them are large. Not for several threads
/// at a time.
class AveragedMoments {
 public:
  using Map = ScratchMatrix<Matrix>::ConstMap;

  AveragedMoments() = default;
  /// Keeps a reference to the context. As many heads at a time as have moments of `most_bytes`.
  AveragedMoments(Context::Impl& context, BlockShape shape, ScratchPlace place,
                  int64_t most_bytes = int64_t{64} << 20);

  /// Of a layer of the constructor's shape on these inputs: the same ones at every call.
  Map of(const Heads& heads, const RowsRef& inputs, int64_t q_head);

 private:
  void take(const Heads& heads, const RowsRef& inputs, int64_t first, int64_t end);

  Context::Impl* context_ = nullptr;
  std::optional<BlockShape> shape_;
  ScratchPlace place_;
  int64_t most_bytes_ = 0;
  std::vector<std::optional<ScratchMatrix<Matrix>>> of_head_;
};

}  // namespace gqa
