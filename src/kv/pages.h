// Where a KvCache keeps the keys and values of one layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "gqa/dtype.h"
#include "gqa/kv_cache.h"
#include "kernels/kernels.h"

namespace gqa::detail {

static_assert(KvCache::page_size == kernels::key_block, "a page is one key block");

/// A page holds page_size tokens of all KV heads: keys [kv_heads][head_dim][page_size], transposed
/// as the score kernel reads them, then values [kv_heads][page_size][v_head_dim]. This struct is
/// the seam for sharing pages between sequences: readers ask for a logical block and never learn
/// where it lies.
struct KvLayer {
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t v_head_dim = 0;
  DType dtype = DType::f32;
  int64_t len = 0;
  std::vector<AlignedBuffer> pages;

  int64_t page_bytes() const {
    return KvCache::page_size * kv_heads * (head_dim + v_head_dim) * dtype_bytes(dtype);
  }
  /// The page of a block is there.
  bool holds(int64_t) const { return true; }
  /// Keys [head_dim][page_size] of a block and KV head.
  std::byte* keys(int64_t block, int64_t head) const {
    return page(block) + head * head_dim * KvCache::page_size * dtype_bytes(dtype);
  }
  /// Values [page_size][v_head_dim] of a block and KV head.
  std::byte* values(int64_t block, int64_t head) const {
    return page(block) +
           (kv_heads * head_dim + head * v_head_dim) * KvCache::page_size * dtype_bytes(dtype);
  }

 private:
  std::byte* page(int64_t block) const {
    return static_cast<std::byte*>(pages[static_cast<size_t>(block)].data());
  }
};

}  // namespace gqa::detail
