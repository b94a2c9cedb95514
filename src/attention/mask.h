// What a mask means, in one place: the keys that a query token sees.
#pragma once

#include <algorithm>
#include <cstdint>

#include "gqa/attention.h"

namespace gqa {

/// Key positions [begin, end).
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
  bool empty() const { return begin >= end; }
};

/// The keys of a sequence with keys [first_key, len) that a query token at `position` sees.
/// Positions only ever add keys at the end: begin and end never fall from one position to the next,
/// so that the keys of a tile of tokens are those from its first token's begin to its last token's
/// end.
inline KeyRange visible_keys(const Mask& mask, int64_t position, int64_t first_key, int64_t len) {
  const int64_t end = mask.causal ? std::clamp<int64_t>(position + 1, 0, len) : len;
  return {std::min(first_key, end), end};
}

}  // namespace gqa
