// A layer whose KV heads belong to groups by degrees: what grouping looks like to a gradient.
#pragma once

#include "regroup/adam.h"
#include "regroup/block_attention.h"

namespace gqa {

/// Instead of keys and values of its own, KV head a of n has a mixture of those of G shared heads,
///
///   k_a = sum over g of p_ag t_ag K_g,   v_a = sum over g of p_ag U_ag V_g,   p = softmax(l / T),
///
/// with t_ag a complex factor per rotary plane and U_ag any map, which is all that may be applied
/// to a head. Where p is 0 or 1 that is a grouped layer: conj(t) goes to the queries, U to the
/// outputs. It also is what a gradient, or a change, has one of for each number.
struct RelaxedHeads {
  int64_t head_dim = 0;
  Rows logits;       ///< l [n, G]
  Rows keys;         ///< K [G * head_dim, inputs]
  Rows values;       ///< V [G * head_dim, inputs]
  Rows key_factors;  ///< t [n * head_dim, G]: real parts, then imaginary ones, as planes() has them
  Rows value_maps;   ///< U [n * head_dim, G * head_dim]
  Rows q, o;         ///< as in BlockWeights

  int64_t heads() const { return logits.rows(); }
  int64_t groups() const { return logits.cols(); }
};

/// The matrices that are learned, in the order above, each a part.
Parts parts_of(RelaxedHeads& heads);
ConstParts parts_of(const RelaxedHeads& heads);

/// p [n, G], rows of softmax(logits / temperature).
Rows assignment(const Rows& logits, double temperature);

/// The layer, with n KV heads again.
BlockWeights mixed(Context::Impl& context, const RelaxedHeads& heads, const Rows& assignment);

/// The gradient by what is learned, of a function whose gradient by mixed() is `gradient`, plus one
/// whose gradient by the assignment is `by_assignment` [n, G]. No bit depends on the number of
/// threads.
RelaxedHeads pullback(Context::Impl& context, const RelaxedHeads& heads, const Rows& assignment,
                      double temperature, const BlockWeights& gradient, Rows by_assignment);

}  // namespace gqa
