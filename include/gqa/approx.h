// Attention that leaves something out: variants that read fewer keys, or score fewer queries.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "gqa/attention_spec.h"
#include "gqa/context.h"
#include "gqa/kv_cache.h"
#include "gqa/mask.h"
#include "gqa/view.h"

namespace gqa {
#pragma GCC visibility push(default)

/// Orthonormal directions of the key space (after RoPE), of most energy first: per layer
/// [kv_heads][head_dim][head_dim] f32. No layers: not known.
struct KeyDirections {
  std::vector<std::vector<float>> layers = {};
};

/// What variants have read, and what exact attention would have read, since the last reset. Counts
/// are sums over query tokens, KV heads and layers.
struct ApproxStats {
  double tokens = 0;         ///< (query token, KV head, layer) triples
  double keys_visible = 0;   ///< keys that the mask allows
  double keys_read = 0;      ///< of them, those whose scores were computed for the token itself
  double bytes_visible = 0;  ///< of keys_visible, in the cache
  /// Bytes of keys_read, and of all summaries, projections and scores that were read to choose
  /// them.
  double bytes_read = 0;
  double select_seconds = 0;  ///< of grouping, choosing and summing up: wall time
  double attend_seconds = 0;  ///< of attention to what was chosen: wall time
  /// What was chosen for a token: pages (topk, topp), keys (lowrank), summaries (global-local); of
  /// a segment and KV head: groups (clustered, dynamic). Empty for the others.
  struct Chosen {
    double mean = 0;
    int64_t min = 0;
    int64_t max = 0;
  };
  std::optional<Chosen> chosen = {};
};

/// What was read, as shares of what exact attention reads, and where the time went. A share of
/// nothing is 0.
struct ApproxShares {
  double keys_read = 0;  ///< of the keys that the model's own mask allows
  double kv_bytes = 0;   ///< of their bytes; what choosing reads counts
  double select = 0;     ///< of the time, grouping, choosing and summing up; 0 for masks
  std::optional<ApproxStats::Chosen> chosen = {};
};
ApproxShares shares_of(const ApproxStats& stats);

/// One way of attention over sequences of KvCaches. What a query token gets depends on its own
/// past alone, whatever follows it and however a prompt is cut into calls; results are
/// bit-identical for any thread count. With a full budget every variant is exact attention, up to
/// rounding.
///
/// Summaries of keys and groups of queries are kept from call to call, per layer and sequence, as
/// long as the sequence only grows; they are made anew where it was truncated or forked, or its id
/// used again (queries are not in the cache: groups then begin anew where the sequence goes on).
/// Thread-safety: like a std::vector.
class Approximation {
 public:
  /// shape: that of the caches which it will be used with. Throws Error (usage) where the spec or
  /// the directions do not fit the shape.
  Approximation(const AttentionSpec& spec, const KvShape& shape, KeyDirections directions = {});
  ~Approximation();
  Approximation(Approximation&&) noexcept;
  Approximation& operator=(Approximation&&) noexcept;

  const AttentionSpec& spec() const;

  struct Item {
    int64_t sequence = 0;
    AnyView<3> q;       ///< [q_len, q_heads, head_dim]: the last q_len tokens of the sequence
    AnyMutView<3> out;  ///< [q_len, q_heads, v_head_dim]
  };
  struct Options {
    std::optional<float> scale = {};              ///< none: 1 / sqrt(head_dim)
    int64_t window = 0;                           ///< of the model's own mask, which is causal
    std::span<const int32_t> group_offsets = {};  ///< as in AttendOptions
  };
  /// As attend() with a causal mask. The keys of the queries' own tokens must be in the cache.
  /// Throws Error (usage) where shapes do not fit, or for a window with any variant but block,
  /// window and exact.
  void attend(Context& context, const KvCache& cache, int64_t layer, std::span<const Item> batch,
              const Options& options);

  /// The mask that a spec amounts to, where it is no more than a mask (exact, block, window),
  /// combined with `model`, the model's own. None for other specs.
  static std::optional<Mask> as_mask(const AttentionSpec& spec, const Mask& model);

  const ApproxStats& stats() const;
  void reset_stats();
  /// Of summaries and groups, over all sequences.
  int64_t memory_bytes() const;

 private:
  struct [[gnu::visibility("hidden")]] Impl;
  std::unique_ptr<Impl> impl_;
};

#pragma GCC visibility pop
}  // namespace gqa
