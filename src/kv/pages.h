// Where a KvCache keeps the keys and values of one layer of one sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/int_row.h"
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
/// Of a quantised type, each of those [head_dim][page_size] and [page_size][v_head_dim] is rows of
/// integers (core/int_row.h) behind scales [page_size] f32, one per token: contiguous, so that they
/// can multiply a block of scores, or the weights of its values, as well as what is decoded. A row
/// of int4 keys holds tokens 0 to 31 in its low nibbles and 32 to 63 in its high ones: 32 bytes
/// are one dimension of a block. With an odd head_dim a row behind the last one stays unused, so
/// that a page is a whole number of bytes per token.
///
/// The end of a page that holds no token yet is zeros, or what a truncated or copied token left:
/// any bits, NaN among them. That is enough: the score of a key is a chain over that key's column
/// alone, which the token's own scale multiplies, so what stands in the unused columns, which the
/// score kernel multiplies too, only reaches scores that the mask then replaces; rows of values and
/// their scales are read only where a query sees them.
struct KvLayer {
  static constexpr int32_t released_page = -1;

  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t v_head_dim = 0;
  KvDType dtype = KvDType::f32;
  PagePool* pool = nullptr;
  int64_t len = 0;             ///< tokens, released ones counted
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
  /// Keys [head_dim][page_size] of a block that it holds, and a KV head.
  std::byte* keys(int64_t block, int64_t head) const {
    return key_part(block, head) + scale_bytes();
  }
  /// Values [page_size][v_head_dim] of a block that it holds, and a KV head.
  std::byte* values(int64_t block, int64_t head) const {
    return value_part(block, head) + scale_bytes();
  }
  /// Bytes from one dimension of keys to the next (n = page_size), or from one token's values to
  /// the next (n = v_head_dim).
  int64_t row_bytes(int64_t n) const {
    return is_quantised(dtype) ? int_row_bytes(dtype, n) : n * dtype_bytes(element_dtype(dtype));
  }
  /// Scales [page_size] of those keys; only of a quantised type.
  float* key_scales(int64_t block, int64_t head) const {
    return reinterpret_cast<float*>(key_part(block, head));
  }
  /// Scales [page_size] of those values; only of a quantised type.
  float* value_scales(int64_t block, int64_t head) const {
    return reinterpret_cast<float*>(value_part(block, head));
  }

 private:
  int64_t scale_bytes() const {
    return is_quantised(dtype) ? KvCache::page_size * static_cast<int64_t>(sizeof(float)) : 0;
  }
  int64_t part_bytes(int64_t dim) const { return KvCache::page_size * kv_vector_bytes(dtype, dim); }
  std::byte* key_part(int64_t block, int64_t head) const { return part(block, head).data(); }
  std::byte* value_part(int64_t block, int64_t head) const {
    return key_part(block, head) + part_bytes(head_dim);
  }
};

}  // namespace gqa::detail
