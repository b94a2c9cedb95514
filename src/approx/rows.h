// Rows of outputs with their LSE, in memory of one's own.
#pragma once

#include <cstdint>
#include <vector>

#include "approx/merge.h"

namespace gqa {

/// [n][heads] rows of `dim` floats.
class OutputRows {
 public:
  void reset(int64_t n, int64_t heads, int64_t dim) {
    n_ = n;
    heads_ = heads;
    dim_ = dim;
    out_.resize(static_cast<size_t>(n * heads * dim));
    lse_.resize(static_cast<size_t>(n * heads));
  }
  AnyMutView<3> out() { return {out_.data(), DType::f32, {n_, heads_, dim_}}; }
  AnyMutView<2> lse() { return {lse_.data(), DType::f32, {n_, heads_}}; }
  PartialRow row(int64_t t, int64_t h) const {
    const auto at = static_cast<size_t>(t * heads_ + h);
    return {out_.data() + at * static_cast<size_t>(dim_), lse_[at]};
  }

 private:
  int64_t n_ = 0, heads_ = 0, dim_ = 0;
  std::vector<float> out_, lse_;
};

}  // namespace gqa
