// A cache beside the cache: something short for every token, or block of tokens, of a sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "approx/call.h"

namespace gqa {

/// Per layer and sequence, rows that follow from the sequence's tokens: it grows as they do, and is
/// made anew where they change. Laid out as a KvCache, so that the kernels score and attend to it.
class Companion {
 public:
  /// k_dim, v_dim: of a row, per KV head; source: of the cache that it goes with.
  Companion(const KvShape& source, int64_t k_dim, int64_t v_dim, KvDType dtype);

  /// Rows that the call's sequence has; 0 after it has done anything but grow.
  int64_t rows(const Call& call);
  /// Appends n rows: k [n, kv_heads, k_dim], v [n, kv_heads, v_dim], dense f32.
  void append(const Call& call, int64_t n, const float* k, const float* v);
  PackedKv view(const Call& call);

  int64_t k_bytes() const;  ///< of a row's key
  int64_t memory_bytes() const;

 private:
  struct Entry {
    int64_t id = -1;
    uint64_t generation = 0;
  };
  Entry& entry(const Call& call);

  std::vector<KvCache> caches_;              ///< one per layer
  std::vector<std::vector<Entry>> entries_;  ///< [layer][sequence of the source]
};

/// Calls body(begin, n, k, v) for tokens [begin, end) of the call's sequence, some at a time, a
/// multiple of `step`: k [n, kv_heads, head_dim], v [n, kv_heads, v_head_dim] f32.
template <typename Body>
void for_tokens(const Call& call, int64_t begin, int64_t end, int64_t step, const Body& body) {
  const int64_t lump = std::max<int64_t>(step, 1024 / step * step);
  std::vector<float> k, v;
  for (; begin < end; begin += lump) {
    const int64_t n = std::min(lump, end - begin);
    k.resize(static_cast<size_t>(n * call.kv_heads() * call.head_dim()));
    v.resize(static_cast<size_t>(n * call.kv_heads() * call.v_head_dim()));
    call.cache.read(call.item.sequence, call.layer, begin, n, k.data(), v.data());
    body(begin, n, k.data(), v.data());
  }
}

}  // namespace gqa
