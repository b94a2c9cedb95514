// Grouped-query attention, forward.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>

#include "gqa/context.h"
#include "gqa/kv_cache.h"
#include "gqa/view.h"

namespace gqa {

/// Keys and values in somebody else's memory: NumPy, PyTorch, other engines' pages.
struct StridedKv {
  AnyView<4> k;                    ///< [pages, page_size, kv_heads, head_dim], any strides
  AnyView<4> v;                    ///< [pages, page_size, kv_heads, v_head_dim], any strides
  std::span<const int32_t> pages;  ///< logical page -> physical page; empty: as they lie
  int64_t first_key = 0;           ///< keys before it are gone and never seen
  int64_t len = 0;                 ///< tokens, counted from position 0
};

using Kv = std::variant<StridedKv, PackedKv>;

/// Which keys a query token at position p sees.
struct Mask {
  bool causal = true;  ///< keys at positions up to p; false: all keys
};

/// One sequence. q_heads / kv_heads query heads share a KV head, contiguously: query head h reads
/// KV head h / (q_heads / kv_heads).
struct AttendItem {
  AnyView<3> q;  ///< [q_len, q_heads, head_dim]
  Kv kv;
  AnyMutView<3> out;  ///< [q_len, q_heads, v_head_dim]
  /// Natural log of the sum of exp(score) per row, [q_len, q_heads] f32; none where data is null.
  AnyMutView<2> lse;
  /// Position of the first query token; none: the queries are the last q_len tokens of kv.
  std::optional<int64_t> q_start;
};

struct AttendOptions {
  std::optional<float> scale = {};  ///< none: 1 / sqrt(head_dim)
  Mask mask = {};
};

/// out = softmax(scale * q k^T, masked) v, per query head; f32 accumulation, online softmax over
/// key blocks (Milakov and Gimelshein 2018; Dao et al. 2022), heads shared as in Ainslie et al.
/// 2023.
///
/// Any mix of f32, f16 and bf16; any q_heads that is a multiple of kv_heads; any head sizes; empty
/// sequences. What a row computes depends on its own visible keys alone: results are bit-identical
/// for any thread count, batch mix and chunking of the prefill. A row that sees no key gives 0 and
/// LSE -inf. NaN in a masked key or value never leaks. out must not overlap q, k or v.
///
/// Throws Error (usage) where shapes do not fit, naming the item.
void attend(Context& context, std::span<const AttendItem> batch, const AttendOptions& options = {});

}  // namespace gqa
