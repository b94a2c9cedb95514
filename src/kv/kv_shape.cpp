// Bytes of caches, by their shape.
#include <cstdint>

#include "core/fail.h"
#include "gqa/kv_cache.h"

namespace gqa {

int64_t KvShape::bytes_per_token() const {
  int64_t heads = 0;
  for (const int64_t n : kv_heads) heads += n;
  return heads * (kv_vector_bytes(dtype, head_dim) + kv_vector_bytes(dtype, v_head_dim));
}

int64_t KvShape::page_bytes(int64_t layer) const {
  require(layer >= 0 && layer < n_layers(), "KV cache: no layer {} of {}", layer, n_layers());
  return KvCache::page_size * kv_heads[static_cast<size_t>(layer)] *
         (kv_vector_bytes(dtype, head_dim) + kv_vector_bytes(dtype, v_head_dim));
}

}  // namespace gqa
