// The KV cache of one sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gqa/context.h"
#include "gqa/view.h"

namespace gqa {

/// What a cache holds for each token.
struct KvShape {
  std::vector<int64_t> kv_heads;  ///< one per layer, each at least 1
  int64_t head_dim = 0;           ///< of keys
  int64_t v_head_dim = 0;         ///< of values
  DType dtype = DType::f32;       ///< how keys and values are stored

  int64_t n_layers() const { return static_cast<int64_t>(kv_heads.size()); }
  /// Bytes that one token takes over all layers: sum of kv_heads * (head_dim + v_head_dim) * bytes.
  int64_t bytes_per_token() const;
};

namespace detail {
struct KvLayer;
}

/// A view of one layer of a KvCache, valid until the cache is next changed. Its layout is the
/// kernels' own and may change: read it through attend() or KvCache::read().
class PackedKv {
 public:
  int64_t len() const { return len_; }
  const detail::KvLayer& layer() const { return *layer_; }

 private:
  friend class KvCache;
  PackedKv(const detail::KvLayer* layer, int64_t len) : layer_(layer), len_(len) {}
  const detail::KvLayer* layer_;
  int64_t len_;
};

/// Keys and values of one sequence, for every layer of a model, in pages of `page_size` tokens.
/// Appending converts f32 (or any other type) to the cache's type, rounding to nearest even.
/// Thread-safety: like a std::vector.
class KvCache {
 public:
  static constexpr int64_t page_size = 64;  ///< tokens

  /// Throws Error (usage) for a shape without layers, or with a size below 1.
  explicit KvCache(KvShape shape);
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;

  const KvShape& shape() const;
  /// Tokens that every layer holds.
  int64_t len() const;
  /// Tokens that this layer holds: layers are appended to one after the other.
  int64_t len(int64_t layer) const;

  /// Appends the same number of tokens to a layer. k: [n, kv_heads, head_dim], v: [n, kv_heads,
  /// v_head_dim], any strides. Throws Error (usage) where a shape does not fit, (resources) where
  /// memory ends; the cache is then as it was.
  void append(Context& context, int64_t layer, const AnyView<3>& k, const AnyView<3>& v);
  /// Keeps the first `len` tokens of every layer. Throws Error (usage) for a len below 0 or above
  /// len().
  void truncate(int64_t len);

  PackedKv view(int64_t layer) const;
  /// Copies tokens [begin, begin + n) of a layer out as f32: k [n, kv_heads, head_dim], v [n,
  /// kv_heads, v_head_dim], dense.
  void read(int64_t layer, int64_t begin, int64_t n, float* k, float* v) const;

  /// Bytes that the stored tokens take: exactly, per layer, tokens * bytes per token.
  int64_t used_bytes() const;
  /// Bytes that are held in pages, used or not.
  int64_t reserved_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gqa
