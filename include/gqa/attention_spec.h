// Specs of attention ("topk:128"): what a command line and an experiment call a variant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace gqa {
#pragma GCC visibility push(default)

/// All keys that the mask allows.
struct ExactAttention {
  bool operator==(const ExactAttention&) const = default;
};

/// block:B. A token attends inside its own block of B positions, counted from position 0 of the
/// sequence (BOS included): attention inside groups of tokens.
struct BlockLocal {
  int64_t block = 0;
  bool operator==(const BlockLocal&) const = default;
};

/// window:W. The last W tokens, the token itself included.
struct SlidingWindow {
  int64_t window = 0;
  bool operator==(const SlidingWindow&) const = default;
};

/// clustered:C[,PAGES]. Query tokens in C groups for each segment of 128 positions; what lies
/// before the segment is scored for a group's representative alone (Vyas et al. 2020). The PAGES
/// pages of 64 keys that it finds most promising are the exception: each member scores these for
/// itself.
struct Clustered {
  int64_t groups = 0;
  int64_t rescored_pages = 0;
  bool operator==(const Clustered&) const = default;
};

/// global-local:W,B. Exact attention to the last W tokens (and on to the next multiple of B), and a
/// summary of each block of B before them.
struct GlobalLocal {
  int64_t window = 0;
  int64_t block = 0;
  bool operator==(const GlobalLocal&) const = default;
};

/// topk:P. Exact attention to P pages of 64 tokens, chosen for each query token and KV head by
/// bounds on the scores (Tang et al. 2024); the first page and the last two are always among them.
struct TopPages {
  int64_t pages = 0;
  bool operator==(const TopPages&) const = default;
};

/// topp:MASS. The same with as many pages as hold an estimated share MASS of the attention.
struct TopMass {
  double mass = 0;
  bool operator==(const TopMass&) const = default;
};

/// lowrank:R[,KEYS]. Exact attention to the KEYS keys that score highest in R principal directions
/// of their KV head (Singhania et al. 2024); without KEYS, to all.
struct LowRank {
  int64_t rank = 0;
  std::optional<int64_t> keys = {};
  bool operator==(const LowRank&) const = default;
};

/// dynamic:LOSS. Groups as in clustered, but as many as the queries need: a query token joins a
/// group only where that changes its attention by an estimated KL divergence of at most LOSS nats.
struct DynamicGroups {
  double loss = 0;
  bool operator==(const DynamicGroups&) const = default;
};

using AttentionSpec = std::variant<ExactAttention, BlockLocal, SlidingWindow, Clustered,
                                   GlobalLocal, TopPages, TopMass, LowRank, DynamicGroups>;

/// "exact" or one of the forms above. Whole numbers are at least 1 (PAGES: 0, as if left out) and
/// at most 2^40, MASS is above 0 and at most 1, LOSS finite and at least 0; no signs, no spaces.
/// Throws Error (usage) that shows the grammar and the nearest valid choice.
AttentionSpec parse_attention(std::string_view text);

/// The inverse of parse_attention().
std::string attention_text(const AttentionSpec& spec);

#pragma GCC visibility pop
}  // namespace gqa
