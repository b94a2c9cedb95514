// The KV cache: keys and values of many sequences, in pages that sequences can share.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gqa/context.h"
#include "gqa/view.h"

namespace gqa {
#pragma GCC visibility push(default)

/// What a cache holds for each token.
struct KvShape {
  std::vector<int64_t> kv_heads;  ///< one per layer, each at least 1
  int64_t head_dim = 0;           ///< of keys
  int64_t v_head_dim = 0;         ///< of values
  KvDType dtype = KvDType::f32;   ///< how keys and values are stored

  int64_t n_layers() const { return static_cast<int64_t>(kv_heads.size()); }
  /// Bytes that one token takes over all layers: the sum of kv_heads * (the bytes of a key
  /// and a value), as kv_vector_bytes() counts them.
  int64_t bytes_per_token() const;
  /// Bytes of a page of one layer. Throws Error (usage) for a layer that is not there.
  int64_t page_bytes(int64_t layer) const;
};

namespace detail {
struct [[gnu::visibility("hidden")]] KvLayer;
}

/// A view of one layer of one sequence, valid until the cache is next changed. Its layout is the
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

/// Memory of a cache: pages, each one counted once however many sequences share it.
struct KvUsage {
  int64_t pages = 0;         ///< that at least one sequence holds
  int64_t shared_pages = 0;  ///< of them, those that several hold
  int64_t bytes = 0;         ///< of `pages`
  int64_t free_pages = 0;    ///< that no sequence holds, kept for the next that needs one
  int64_t free_bytes = 0;    ///< of `free_pages`

  bool operator==(const KvUsage&) const = default;
};

/// Keys and values of a batch of sequences, for every layer of a model. A page is `page_size`
/// tokens of one layer; each sequence has a page table per layer. A fork shares all pages; the last
/// one, if it is partly filled, is copied when either side first writes into it, and no other.
/// Pages that no sequence holds are kept and used again. Appending converts f32 (or any other type)
/// to the cache's type, rounding to nearest even.
///
/// Where the type is int8 or int4, each vector (a token's key or value of one KV head) is quantised
/// on its own: with m the largest magnitude in it, scale = m / 127 or m / 7, and q = x / scale,
/// rounded. Reading, and attend(), see scale * q, rounded once to f32: within scale / 2 of x but
/// for the rounding of these operations. A vector with a NaN or an infinity reads as NaN
/// throughout, so that it shows; one whose scale would be below f32's normal range (m < 1.5e-36)
/// reads as 0. How a token is stored depends on nothing but the token.
///
/// A sequence is an id, 0 or above. Every function that takes one throws Error (usage) where it is
/// not alive, and where a layer is not there.
/// Thread-safety: like a std::vector.
class KvCache {
 public:
  static constexpr int64_t page_size = 64;  ///< tokens

  /// max_pages: over all layers, held or free; 0: as many as memory holds. Throws Error (usage) for
  /// a shape without layers, or with a size below 1, or for max_pages below 0; (resources) where
  /// the bytes of a page can't be counted.
  explicit KvCache(KvShape shape, int64_t max_pages = 0);
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;

  const KvShape& shape() const;
  int64_t max_pages() const;

  // --- sequences ---

  /// A new, empty sequence. Ids of freed sequences are used again. Throws Error (resources).
  int64_t create();
  /// A new sequence that holds the first `len` tokens of another, and shares their pages. Throws
  /// Error (usage) for a len below 0 or above len(sequence), or where the page of token len - 1 was
  /// released in any layer; (resources).
  int64_t fork(int64_t sequence, int64_t len);
  /// Forgets a sequence; pages that no other holds become free.
  void free(int64_t sequence);
  /// Tokens that every layer of a sequence holds, released ones counted.
  int64_t len(int64_t sequence) const;
  /// Tokens that this layer holds: layers are appended to one after the other.
  int64_t len(int64_t sequence, int64_t layer) const;

  // --- content ---

  struct Growth {
    int64_t sequence = 0;
    int64_t tokens = 0;  ///< for each layer
  };
  /// Takes the pages that appending `tokens` more to every layer of each sequence needs, the copy
  /// of a shared last page included: all of them or none. append() then finds them, unless the
  /// sequence is forked before. They belong to it until it is truncated or freed. Throws Error
  /// (usage) for a sequence that occurs twice, or a number below 0 or above 2^40; (resources) where
  /// pages or memory end, saying how many pages are missing; the cache is then as it was.
  void reserve(std::span<const Growth> growths);

  /// Appends the same number of tokens to a layer. k: [n, kv_heads, head_dim], v: [n, kv_heads,
  /// v_head_dim], any strides. Many tokens are shared out over the context's threads; what is
  /// stored does not depend on them. Throws Error (usage) where a shape does not fit, (resources)
  /// where pages or memory end, saying how many pages are missing; the cache is then as it was.
  void append(Context& context, int64_t sequence, int64_t layer, const AnyView<3>& k,
              const AnyView<3>& v);
  /// Keeps the first `len` tokens of every layer, and gives up pages reserved beyond them. Throws
  /// Error (usage) for a len below 0 or above len(sequence), or where the page of token len - 1 was
  /// released in any layer.
  void truncate(int64_t sequence, int64_t len);
  /// Gives up the pages that lie wholly within tokens [begin, end) of a layer: what a sliding
  /// window will never see again. Lengths and positions stay; attend() refuses a mask that sees a
  /// released token. Throws Error (usage) for tokens that are not there; those released before may
  /// be among them.
  void release(int64_t sequence, int64_t layer, int64_t begin, int64_t end);

  PackedKv view(int64_t sequence, int64_t layer) const;
  /// Copies tokens [begin, begin + n) of a layer out as f32: k [n, kv_heads, head_dim], v [n,
  /// kv_heads, v_head_dim], dense. Throws Error (usage) for tokens that are not there or were
  /// released.
  void read(int64_t sequence, int64_t layer, int64_t begin, int64_t n, float* k, float* v) const;

  // --- accounting ---

  /// Bytes that a sequence's tokens take, shared or not: exactly, per layer, tokens held * bytes
  /// per token. Tokens of released pages don't count.
  int64_t used_bytes(int64_t sequence) const;
  /// The whole cache's. Cost: that of the number of different page sizes, not of pages.
  KvUsage usage() const;

 private:
  struct [[gnu::visibility("hidden")]] Impl;
  std::unique_ptr<Impl> impl_;
};

#pragma GCC visibility pop
}  // namespace gqa
