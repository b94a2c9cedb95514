#include "attention/backward_queries.h"

#include <algorithm>

#include "kernels/load_row.h"

namespace gqa {

QueryGradients::QueryGradients(const kernels::Table& kernels, const AnyMutView<3>& dq,
                               const Tile& tile, int64_t first_row, float scale)
    : kernels_(kernels),
      dq_(dq),
      tile_(tile),
      first_row_(first_row),
      head_dim_(dq.shape[2]),
      stride_(row_stride(head_dim_)),
      scale_(scale) {}

float* QueryGradients::sum(int64_t row, float* sums) const {
  if (sums) return sums + (first_row_ + row) * stride_;
  return static_cast<float*>(dq_.data) + tile_.token(row) * dq_.strides[0] +
         tile_.head(row) * dq_.strides[1];
}

void QueryGradients::add(float* parts, bool first, bool last, float* sums) const {
  for (int64_t r = 0; r < tile_.rows(); ++r) {
    float* const part = parts + r * stride_;
    if (!first) {
      const float* const before = sum(r, sums);
      for (int64_t d = 0; d < head_dim_; ++d) part[d] += before[d];
    }
    if (last) {
      for (int64_t d = 0; d < head_dim_; ++d) part[d] *= scale_;
      write_row(r, part);
    } else {
      std::copy_n(part, head_dim_, sum(r, sums));
    }
  }
}

void QueryGradients::write(const float* rows) const {
  for (int64_t r = 0; r < tile_.rows(); ++r) write_row(r, rows + r * stride_);
}

void QueryGradients::write_row(int64_t row, const float* values) const {
  const int64_t begin = tile_.token(row) * dq_.strides[0] + tile_.head(row) * dq_.strides[1];
  kernels::store_row(kernels_, values, head_dim_, dq_.data, dq_.dtype, begin, dq_.strides[2]);
}

}  // namespace gqa
