// How alike KV heads are.
#pragma once

#include <cstdint>
#include <vector>

#include "io/checkpoint.h"

namespace gqa {

/// gram[a * heads + b] = the dot product of heads a <= b, each head the vector of its rows.
std::vector<double> head_gram(const Tensor& tensor, int64_t heads);

/// Mean |cosine| over all pairs of heads, each head the vector of its rows; NaN with one head. A
/// head of zeros is like no other. Throws Error (bad_data) where an element is not finite.
double head_similarity(const Tensor& tensor, int64_t heads);

}  // namespace gqa
