// The oracle: attention in double precision, one row at a time, as the formula says.
#pragma once

#include <cstdint>
#include <vector>

#include "gqa/attention.h"

namespace gqa::reference {

struct Result {
  std::vector<double> out;  ///< [q_len, q_heads, v_head_dim]
  std::vector<double> lse;  ///< [q_len, q_heads]
  // What error bounds are made of.
  std::vector<double> score_size;  ///< [q_len, q_heads]: largest visible scale * sum |q_d k_d|
  std::vector<double> value_size;  ///< [q_len, q_heads, v_head_dim]: sum of weight * |v|
};

/// softmax(scale * q k^T, masked) v of one item whose keys and values are strided arrays.
Result attend(const AttendItem& item, const AttendOptions& options);

}  // namespace gqa::reference
