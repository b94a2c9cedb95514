// Gradients of a bias, whose axes of size 1 stand for all heads, tokens or keys.
#pragma once

#include <cstdint>

#include "attention/tile.h"
#include "gqa/attention_backward.h"

namespace gqa {

/// What has to be one unit's work, so that the order of a sum does not depend on threads.
struct BiasOrder {
  bool one_for_heads = false;  ///< an element sums over KV heads: a unit has them all
  bool one_for_keys = false;   ///< over keys of several chunks: likewise
};
BiasOrder bias_order(const AnyMutView<3>& dbias, const ItemShape& shape);

/// Floats of scratch that its sums need; 0 where dbias itself can hold them, or there are none.
int64_t bias_scratch(const AnyMutView<3>& dbias, const ItemShape& shape);

/// Where dbias is added up, or written if nothing is summed.
class BiasSums {
 public:
  /// scratch: [bias_scratch()], if that is not 0.
  BiasSums(const AnyMutView<3>& dbias, const ItemShape& shape, float* scratch);

  /// Rows of the array: what clear() and write() go by.
  int64_t rows() const { return sums_.shape[0] * sums_.shape[1]; }
  void clear(int64_t row) const;
  /// The gradients ds [rows][key_block] of a tile's scores at a block.
  void add(const Tile& tile, int64_t block, const uint64_t* visible, const float* ds) const;
  /// From scratch, if it was used, to dbias.
  void write(int64_t row) const;

 private:
  int64_t step(size_t axis) const { return sums_.shape[axis] == 1 ? 0 : sums_.strides[axis]; }

  AnyMutView<3> dbias_;
  AnyMutView<3> sums_;
  bool adds_;
  int64_t len_;
};

}  // namespace gqa
