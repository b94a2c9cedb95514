// The oracle of the backward: gradients in double precision, one row at a time, as the formula
// says.
#pragma once

#include <cstdint>
#include <vector>

#include "gqa/attention_backward.h"
#include "reference/attention.h"

namespace gqa::reference {

/// What token t's query head h has to do with a key that it sees.
struct Pair {
  int64_t t, h, kv_head, key;
  double weight;   ///< P
  double dp;       ///< d_out v
  double dp_size;  ///< sum |d_out_d v_d|
  double slope;    ///< of the soft cap, 1 - tanh^2
};

struct Gradients {
  std::vector<double> dq;      ///< [q_len, q_heads, head_dim]
  std::vector<double> dk;      ///< [kv_len, kv_heads, head_dim], by logical key
  std::vector<double> dv;      ///< [kv_len, kv_heads, v_head_dim], likewise
  std::vector<double> dbias;   ///< of the bias's shape; empty: it has none
  std::vector<double> dsinks;  ///< [q_heads], of this item; empty: options have none
  // What error bounds are made of: absolute values of all terms can be summed up from these.
  std::vector<Pair> pairs;
  std::vector<double> d;            ///< [q_len, q_heads]: D
  std::vector<double> sink_weight;  ///< [q_len, q_heads]
};

/// Gradients of attend() where the loss's by the outputs is item.d_out. Weights and outputs are
/// computed here: the item's out and lse are not looked at, nor is where gradients go. `sees` as
/// there.
Gradients attend_backward(const AttendBackwardItem& item, const AttendOptions& options,
                          const Sees& sees);

}  // namespace gqa::reference
