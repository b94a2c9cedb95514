// Masks: which keys a query token sees. All of a mask's meaning is in this file; what is computed
// and what is skipped both follow from visible_keys().
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace gqa {
#pragma GCC visibility push(default)

/// Which keys a query token at position p sees. Conditions add up: a key must meet all of them.
struct Mask {
  bool causal = true;  ///< keys at positions up to p
  /// Keys less than `window` positions away: the last `window` tokens, p's own included, and, where
  /// the mask is not causal, as many after p. 0: at any distance.
  int64_t window = 0;
  /// Keys of p's own block of `block` positions, counted from position 0. 0: of all blocks.
  int64_t block = 0;
  /// The first tokens of the sequence, seen in spite of window and block (attention sinks, Xiao et
  /// al. 2023).
  int64_t sink_tokens = 0;
};

/// Key positions [begin, end).
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
  bool empty() const { return begin >= end; }
  bool operator==(const KeyRange&) const = default;
};

/// The keys that a sequence has.
struct SequenceKeys {
  int64_t first = 0;   ///< those before are gone
  int64_t len = 0;     ///< counted from position 0
  int64_t prefix = 0;  ///< this many are seen by every query, whatever the mask says (prefix-LM)
};

/// What one query token sees: two runs of keys, ascending and disjoint; either may be empty.
using VisibleKeys = std::array<KeyRange, 2>;

/// The keys that a query token at `position` (possibly negative) sees. From one position to the
/// next, neither begin nor end of a run goes back. So what a tile of tokens sees lies, run by run,
/// between its first token's begin and its last token's end.
inline VisibleKeys visible_keys(const Mask& mask, int64_t position, const SequenceKeys& keys) {
  int64_t begin = 0;
  int64_t end = keys.len;
  int64_t kept = mask.sink_tokens;
  if (mask.causal) {
    end = std::min(end, position + 1);
    kept = std::min(kept, position + 1);
  }
  if (mask.window > 0) {
    begin = std::max(begin, position - mask.window + 1);
    end = std::min(end, position + mask.window);
  }
  if (mask.block > 0) {
    const int64_t past = position % mask.block;
    const int64_t first = position - (past < 0 ? past + mask.block : past);
    begin = std::max(begin, first);
    end = std::min(end, first + mask.block);
  }
  kept = std::clamp(std::max(kept, keys.prefix), keys.first, keys.len);
  begin = std::min(std::max(begin, kept), keys.len);
  return {KeyRange{keys.first, kept}, KeyRange{begin, std::max(begin, end)}};
}

#pragma GCC visibility pop
}  // namespace gqa
