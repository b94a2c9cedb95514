// The oracle: attention in double precision, one row at a time, as the formula says.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "gqa/attention.h"

namespace gqa::reference {

struct Result {
  std::vector<double> out;  ///< [q_len, q_heads, v_head_dim]
  std::vector<double> lse;  ///< [q_len, q_heads], sinks left out
  // What error bounds are made of.
  std::vector<double> score_size;  ///< [q_len, q_heads]: largest visible scale * sum |q_d k_d|
  std::vector<double> added_size;  ///< [q_len, q_heads]: largest visible |bias| + |ALiBi|
  std::vector<double> value_size;  ///< [q_len, q_heads, v_head_dim]: sum of weight * |v|
};

/// Whether a query token at a position sees a key.
using Sees = std::function<bool(int64_t position, int64_t key)>;

/// softmax(scale * q k^T + ..., masked) v of one item whose keys and values are strided arrays.
/// Which keys are seen is `sees`'s to say (options.mask and item.prefix are not looked at), and the
/// bias's: -inf masks, and item.selected's.
Result attend(const AttendItem& item, const AttendOptions& options, const Sees& sees);

}  // namespace gqa::reference
