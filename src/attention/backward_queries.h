// Where the gradients of a tile's queries go.
#pragma once

#include <cstdint>

#include "attention/tile.h"

namespace gqa {

/// Rows of parts and sums lie row_stride(head_dim) apart.
class QueryGradients {
 public:
  /// first_row: the tile's, of the rows of its head.
  QueryGradients(const kernels::Table& kernels, const AnyMutView<3>& dq, const Tile& tile,
                 int64_t first_row, float scale);

  /// Adds what a chunk's keys give, over the scale, to the sums; it is the first or the last
  /// summand. The last one gives dq. sums: those of the head, or null if they are dq itself. Parts
  /// are overwritten.
  void add(float* parts, bool first, bool last, float* sums) const;
  /// dq = rows.
  void write(const float* rows) const;

 private:
  float* sum(int64_t row, float* sums) const;
  void write_row(int64_t row, const float* values) const;

  const kernels::Table& kernels_;
  const AnyMutView<3>& dq_;
  const Tile& tile_;
  int64_t first_row_;
  int64_t head_dim_, stride_;
  float scale_;
};

}  // namespace gqa
