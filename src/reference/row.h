// What the oracles of attention have in common: elements of an item's arrays, and a row's scores.
#pragma once

#include <cstdint>
#include <vector>

#include "core/half.h"
#include "reference/attention.h"

namespace gqa::reference {

/// An axis of size 1 stands for all.
inline double element(const AnyView<3>& x, int64_t i, int64_t j, int64_t k) {
  const auto step = [&](size_t axis, int64_t index) {
    return x.shape[axis] == 1 ? 0 : index * x.strides[axis];
  };
  return load_element(x.data, x.dtype, step(0, i) + step(1, j) + step(2, k));
}

/// Token s of a paged array.
inline double element(const AnyView<4>& x, const StridedKv& kv, int64_t s, int64_t head,
                      int64_t d) {
  const int64_t logical = s / x.shape[1];
  const int64_t page = kv.pages.empty() ? logical : kv.pages[static_cast<size_t>(logical)];
  return load_element(
      x.data, x.dtype,
      page * x.strides[0] + s % x.shape[1] * x.strides[1] + head * x.strides[2] + d * x.strides[3]);
}

double scale_of(const AttendItem& item, const AttendOptions& options);

/// What one query head of one token makes of the keys that it sees.
struct Row {
  int64_t kv_head = 0;
  std::vector<int64_t> keys;    ///< those that it sees, ascending
  std::vector<double> weights;  ///< of each
  std::vector<double> slopes;   ///< of each: of the soft cap, d score / d (scale q k)
  double sink_weight = 0;
  double lse = 0;         ///< of scores, sinks left out; -inf: it sees none
  double score_size = 0;  ///< largest scale * sum |q_d k_d|
  double added_size = 0;  ///< largest |bias| + |ALiBi|
};
Row row_of(const AttendItem& item, const AttendOptions& options, const Sees& sees, int64_t t,
           int64_t h);

}  // namespace gqa::reference
