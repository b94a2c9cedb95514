// Grouped-query attention, forward.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>

#include "gqa/context.h"
#include "gqa/kv_cache.h"
#include "gqa/mask.h"
#include "gqa/view.h"

namespace gqa {
#pragma GCC visibility push(default)

/// Keys and values in somebody else's memory: NumPy, PyTorch, other engines' pages.
struct StridedKv {
  AnyView<4> k;                    ///< [pages, page_size, kv_heads, head_dim], any strides
  AnyView<4> v;                    ///< [pages, page_size, kv_heads, v_head_dim], any strides
  std::span<const int32_t> pages;  ///< logical page -> physical page; empty: as they lie
  int64_t first_key = 0;           ///< keys before it are gone and never seen
  int64_t len = 0;                 ///< tokens, counted from position 0
};

using Kv = std::variant<StridedKv, PackedKv>;

/// Keys that are seen, for each query token and KV head: bit s of word b says that key 64 * b + s
/// is. A row has ceil(kv_len / 64) words; that of token t and KV head g begins t * token_stride + g
/// * head_stride words after the first. Strides may be 0: one row for all. Where words is null,
/// nothing is left out.
struct KeySelection {
  const uint64_t* words = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

/// One sequence.
struct AttendItem {
  AnyView<3> q;  ///< [q_len, q_heads, head_dim]
  Kv kv;
  AnyMutView<3> out;  ///< [q_len, q_heads, v_head_dim]
  /// Natural log of the sum of exp(score) over the visible keys (sinks do not count), [q_len,
  /// q_heads] f32; none where data is null.
  AnyMutView<2> lse = {};
  /// Position of the first query token; none: the queries are the last q_len tokens of kv.
  std::optional<int64_t> q_start = {};
  /// Prefix-LM: the first `prefix` keys are seen by every query token, whatever the mask says.
  int64_t prefix = 0;
  /// Added to the scores: [q_heads or 1, q_len or 1, kv_len or 1], any strides; a size of 1 stands
  /// for all. A key whose bias is -inf is masked. None where data is null.
  AnyView<3> bias = {};
  /// Of the keys that mask and prefix let a token see, only those that are selected are seen, and
  /// only the blocks of 64 that hold any of them for some token of a tile are read.
  KeySelection selected = {};
};

struct AttendOptions {
  std::optional<float> scale = {};  ///< none: 1 / sqrt(head_dim)
  Mask mask = {};
  /// Scores become softcap * tanh(score / softcap), before anything is added (Gemma team 2024); 0:
  /// they stay.
  float softcap = 0.0f;
  /// Slopes [q_heads]: slope * |p - key| is taken from a score (ALiBi, Press et al. 2022).
  std::span<const float> alibi = {};
  /// Logits [q_heads], finite or -inf: each joins the softmax of its head like the score of a key
  /// without a value.
  std::span<const float> sinks = {};
  /// Unequal groups, [kv_heads + 1], ascending from 0 to q_heads: query heads [group_offsets[g],
  /// group_offsets[g + 1]) read KV head g. Empty: q_heads / kv_heads heads each.
  std::span<const int32_t> group_offsets = {};
};

/// out = softmax(scale * q k^T + bias, masked) v, per query head; f32 accumulation, online softmax
/// over key blocks (Milakov and Gimelshein 2018; Dao et al. 2022), heads shared as in Ainslie et
/// al. 2023: contiguous query heads share a KV head.
///
/// Takes any mix of f32, f16 and bf16, and caches of any KvDType; any number of heads to a group;
/// any head sizes; empty sequences; queries that are no part of the keys' sequence
/// (cross-attention: a mask that is not causal). A quantised cache counts as the f32 values that
/// KvCache::read() gives, to the bit. For it, avx2_int16, avx512_int16, avx512_vnni and avx512_amx
/// round queries and weights to 16 bits; for bf16 caches, avx512_amx rounds them to bf16. Key
/// blocks that no query of a tile sees are not read. A row depends on its own visible keys alone:
/// results are bit-identical for any thread count, batch mix, page table and chunking of the
/// prefill. A row that sees no key gives 0 and LSE -inf. NaN in a masked key or value never leaks;
/// in a visible one it reaches the rows that see it. out must not overlap q, k or v.
///
/// Throws Error (usage) where shapes do not fit, or where the mask sees tokens that a cache has
/// released, naming the item.
void attend(Context& context, std::span<const AttendItem> batch, const AttendOptions& options = {});

#pragma GCC visibility pop
}  // namespace gqa
