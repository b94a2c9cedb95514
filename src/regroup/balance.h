// Heads in a basis in which their numbers are of a size.
#pragma once

#include "regroup/heads.h"

namespace gqa {

/// The same function in another basis: each rotary plane of a KV head's keys as large (root mean
/// square) as it is in the queries that read it, each dimension of its values as in the outputs.
/// What is learned element by element, at rates relative to a matrix, then reaches all of it.
Heads balanced(Heads heads);

}  // namespace gqa
