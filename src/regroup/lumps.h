// A layer's attention on all of a text, a few windows at a time: probabilities take memory.
#pragma once

#include <algorithm>

#include "regroup/block_attention.h"
#include "regroup/scratch_matrix.h"

namespace gqa {

/// About so many tokens at a time, whole windows.
inline constexpr int64_t lump_tokens = 4096;

/// The first window behind a lump that begins with window `first`.
inline int64_t lump_end(const std::vector<int64_t>& window_begin, int64_t first) {
  const int64_t windows = std::ssize(window_begin) - 1;
  const auto tokens = [&](int64_t end) {
    return window_begin[static_cast<size_t>(end)] - window_begin[static_cast<size_t>(first)];
  };
  int64_t end = first + 1;
  while (end < windows && tokens(end + 1) <= lump_tokens) ++end;
  return end;
}

/// Calls body(shape, block, first row) lump by lump, the block having run on the lump's rows of the
/// inputs.
template <typename Body>
void for_lumps(Context::Impl& context, const BlockShape& shape, const RowsRef& inputs,
               const BlockWeights& weights, const Body& body) {
  BlockShape part = shape;
  Rows rows;
  for (int64_t first = 0, end = 0; first < shape.windows(); first = end) {
    end = lump_end(shape.window_begin, first);
    const int64_t row = shape.window_begin[static_cast<size_t>(first)];
    part.window_begin.clear();
    for (int64_t w = first; w <= end; ++w) {
      part.window_begin.push_back(shape.window_begin[static_cast<size_t>(w)] - row);
    }
    rows = inputs.middleRows(row, part.window_begin.back());
    BlockAttention block(context, part, rows);
    block.run(weights);
    body(part, block, row);
  }
}

/// [tokens, width]: what the layer puts out.
inline ScratchRows block_output(Context::Impl& context, const BlockShape& shape,
                                const RowsRef& inputs, const BlockWeights& weights,
                                const ScratchPlace& place = {}) {
  ScratchRows output(place, inputs.rows(), weights.o.rows());
  for_lumps(context, shape, inputs, weights,
            [&](const BlockShape& part, const BlockAttention& block, int64_t row) {
              output.map().middleRows(row, part.window_begin.back()) = block.output();
            });
  return output;
}

}  // namespace gqa
