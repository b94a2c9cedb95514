// Where a KvCache keeps the keys and values of one layer of one sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gqa/dtype.h"
#include "gqa/kv_cache.h"
#include "kernels/kernels.h"
#include "kv/page_pool.h"

namespace gqa::detail {

static_assert(KvCache::page_size == kernels::key_block, "a page is one key block");

/// A page holds page_size tokens of all KV heads: keys [kv_heads][head_dim][page_size], transposed
/// as the score kernel reads them, then values [kv_heads][page_size][v_head_dim]. Readers ask for a
/// logical block and never learn where it lies, nor with whom it is shared.
///
/// The end of a page that holds no token yet is zeros, or what a truncated or copied token left:
/// any bits, NaN among them. That is enough: the score of a key is a chain over that key's column
/// alone, so what stands in the unused columns, which the score kernel multiplies too, only reaches
/// scores that the mask then replaces; rows of values are read only where a query sees them.
struct KvLayer {
  static constexpr int32_t released_page = -1;

  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t v_head_dim = 0;
  DType dtype = DType::f32;
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
  /// Keys [head_dim][page_size] of a block that it holds, and a KV head.
  std::byte* keys(int64_t block, int64_t head) const {
    return page(block) + head * head_dim * KvCache::page_size * dtype_bytes(dtype);
  }
  /// Values [page_size][v_head_dim] of a block that it holds, and a KV head.
  std::byte* values(int64_t block, int64_t head) const {
    return page(block) +
           (kv_heads * head_dim + head * v_head_dim) * KvCache::page_size * dtype_bytes(dtype);
  }

 private:
  std::byte* page(int64_t block) const { return pool->data(pages[static_cast<size_t>(block)]); }
};

}  // namespace gqa::detail
