// Scores of a few queries against all rows of a cache.
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "gqa/attention.h"
#include "kernels/kernels.h"

namespace gqa {

/// What one thread scores in.
class Scores {
 public:
  /// scale * q k for q [rows][dim] and keys [begin, end) of a KV head, each one chain of
  /// multiply-adds. begin: a multiple of 64.
  void compute(const kernels::Table& kernels, const PackedKv& kv, int64_t kv_head, const float* q,
               int64_t rows, float scale, int64_t begin, int64_t end);
  void compute(const kernels::Table& kernels, const PackedKv& kv, int64_t kv_head, const float* q,
               int64_t rows, float scale, int64_t end) {
    compute(kernels, kv, kv_head, q, rows, scale, 0, end);
  }
  /// [end - begin] and perhaps some more.
  float* row(int64_t r) { return values_.data() + r * stride_; }

 private:
  std::vector<float> values_;
  int64_t stride_ = 0;
  AlignedBuffer queries_, keys_, block_;
};

/// score(h, i) of rows [first, first + heads) of scores for candidates i in [begin, end), each
/// row's largest one subtracted, and of that the largest over the rows: how much anyone of a group
/// wants a candidate. value [end - begin].
void wanted(Scores& scores, int64_t first, int64_t heads, int64_t begin, int64_t end, float* value);

/// order [n]: the `count` largest values first, in any order; of equal ones the earlier.
void largest(const float* value, int64_t n, int64_t count, std::vector<int32_t>& order);

}  // namespace gqa
