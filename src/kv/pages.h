// Where a KvCache keeps the keys and values of one layer of one sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/kv_words.h"
#include "gqa/dtype.h"
#include "gqa/kv_cache.h"
#include "kernels/kernels.h"
#include "kv/page_pool.h"

namespace gqa::detail {

static_assert(KvCache::page_size == kernels::key_block, "a page is one key block");

/// A page holds page_size tokens of all KV heads, a part for each head: keys [head_dim][page_size],
/// transposed as the score kernel reads them, then values [page_size][v_head_dim]. Parts of one
/// head lie one behind the other (SlabMemory), and that is how a thread reads them. Readers ask for
/// a logical block and never learn where it lies, nor with whom it is shared.
///
/// Both are stored in words (core/kv_words.h), in rows or in panels. Of a quantised type, each of
/// the two lies behind scales [page_size] f32, one per token: contiguous, since a block of scores,
/// or the weights of its values, are multiplied by them instead of what is decoded.
///
/// The end of a page that holds no token yet is zeros, or what a truncated or copied token left:
/// any bits, NaN among them. That is enough: the score of a key is a sum over that key's column
/// alone, so what stands in the unused columns, which the score kernel multiplies too, only reaches
/// scores that the mask then replaces; values count only where a query sees them.
struct KvLayer {
  static constexpr int32_t released_page = -1;

  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t v_head_dim = 0;
  KvDType dtype = KvDType::f32;
  bool in_panels = false;  ///< as the kernels of this machine want it
  PagePool* pool = nullptr;
  int64_t len = 0;  ///< tokens, released ones counted
  /// Changes whenever the sequence does anything but grow: of any two layers, in whatever cache and
  /// at whatever time, that have the same, one holds the first tokens of the other.
  uint64_t generation = 0;
  int64_t released = 0;        ///< pages
  std::vector<int32_t> pages;  ///< logical block -> page of the pool or released_page; behind the
                               ///< last token, pages taken in advance

  /// Whether this block's page is there: not released, nor beyond the end.
  bool holds(int64_t block) const {
    return block >= 0 && block < static_cast<int64_t>(pages.size()) &&
           pages[static_cast<size_t>(block)] != released_page;
  }
  /// Keys and values of a block that it holds, and a KV head.
  std::span<std::byte> part(int64_t block, int64_t head) const {
    return pool->part(pages[static_cast<size_t>(block)], head);
  }
  /// Those keys, behind their scales if there are any.
  std::span<std::byte> key_part(int64_t block, int64_t head) const {
    return part(block, head).first(static_cast<size_t>(key_bytes()));
  }
  /// Those values, likewise.
  std::span<std::byte> value_part(int64_t block, int64_t head) const {
    return part(block, head).subspan(static_cast<size_t>(key_bytes()));
  }
  /// Keys [head_dim][page_size] in words.
  std::byte* keys(int64_t block, int64_t head) const {
    return key_part(block, head).data() + scale_bytes();
  }
  /// Values [page_size][v_head_dim] in words.
  std::byte* values(int64_t block, int64_t head) const {
    return value_part(block, head).data() + scale_bytes();
  }
  /// Of one block and head, with its scales.
  int64_t key_bytes() const { return KvCache::page_size * kv_vector_bytes(dtype, head_dim); }
  int64_t value_bytes() const { return KvCache::page_size * kv_vector_bytes(dtype, v_head_dim); }
  /// Of its scales: 0 if there are none.
  int64_t scale_bytes() const {
    return is_quantised(dtype) ? KvCache::page_size * static_cast<int64_t>(sizeof(float)) : 0;
  }
  WordOrder key_order() const { return order(head_dim, KvCache::page_size); }
  WordOrder value_order() const { return order(KvCache::page_size, v_head_dim); }
  /// Scales [page_size] of those keys; only of a quantised type.
  float* key_scales(int64_t block, int64_t head) const {
    return reinterpret_cast<float*>(key_part(block, head).data());
  }
  /// Scales [page_size] of those values; only of a quantised type.
  float* value_scales(int64_t block, int64_t head) const {
    return reinterpret_cast<float*>(value_part(block, head).data());
  }

 private:
  WordOrder order(int64_t depth, int64_t columns) const {
    return in_panels ? WordOrder::panels(dtype, depth, columns) : WordOrder::rows(columns);
  }
};

}  // namespace gqa::detail
