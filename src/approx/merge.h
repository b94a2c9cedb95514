// Attention to disjoint sets of keys, put together.
#pragma once

#include <cstdint>

#include "gqa/view.h"

namespace gqa {

/// What one query token and head got from a set of keys.
struct PartialRow {
  const float* out;  ///< [n]
  float lse;         ///< of its scores; -inf: the set was empty
};

/// out [n] of a row of a view = attention to the union of two disjoint sets: exact, since each
/// weighs as much as the exponentials that it has summed up.
void merge_rows(const PartialRow& a, const PartialRow& b, const AnyMutView<3>& out, int64_t t,
                int64_t h);

}  // namespace gqa
