// What the backward needs to know of each query row before it begins.
#pragma once

#include <cstdint>
#include <span>

#include "attention/backward_plan.h"

namespace gqa {

/// Of rows in the order of BackwardHead::first_row.
struct RowTerms {
  float* lse;    ///< [rows]: the natural log of the softmax's denominator, sinks and all; -inf for
                 ///< a row that sees no key
  float* delta;  ///< [rows]: sum of d_out * out; 0 for a row that sees no key
};

/// Fills in the terms of tokens [t_begin, t_end) of a head. scratch: [2][row_stride(v_head_dim)].
void load_row_terms(const kernels::Table& kernels, const BackwardJob& job, const BackwardHead& head,
                    int64_t t_begin, int64_t t_end, const RowTerms& terms, float* scratch);

/// The gradient of the sink of query head `q_head`, of all items, from their terms: the items and
/// tokens one after the other.
float sink_gradient(const BackwardJob& job, std::span<const BackwardHead> heads, int64_t q_head,
                    const RowTerms& terms);

}  // namespace gqa
