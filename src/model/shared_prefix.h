// Which prompts of a batch start alike, and who takes over what from whom.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace gqa {

/// What a prompt takes over from an earlier one, its donor, and gives to later ones. "Needed" are
/// the tokens of a donor that prompts yet to come take over: the longest such prefix.
struct SharedPrefix {
  std::optional<size_t> donor;    ///< none: it computes all of its tokens
  int64_t tokens = 0;             ///< that it takes over; always fewer than it has
  int64_t donor_needed_then = 0;  ///< of the donor's tokens, once this prompt has got its own
  int64_t needed = 0;             ///< of its own tokens, at first
};

/// A fork has to save this many tokens. It costs up to one copied page per layer, and a wait: the
/// donor's tokens must have been computed. Prompts that share BOS and a word are better off joining
/// the same forward pass. Likewise a prompt forks from its donor's donor if that loses fewer than
/// this, so that prompts with one long beginning and chance likenesses after it wait for the first
/// of them only, and not for one another.
constexpr int64_t least_shared = 16;

/// Plans what prompts, each with at least one id, share. A donor is among the `window` prompts
/// before: so no more than that many prefixes are ever kept for prompts that wait, and it is in the
/// order of the prompts that they are given up. O(n log window) comparisons of prompts.
std::vector<SharedPrefix> share_prefixes(std::span<const std::span<const int32_t>> prompts,
                                         int64_t window);

}  // namespace gqa
