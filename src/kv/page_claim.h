// Pages for tokens to come, for several layers and sequences at once: all of them or none.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/page_pool.h"
#include "kv/pages.h"

namespace gqa {

/// Adds up what layers need, takes it, and puts it into their page tables only once it is all
/// there. Until commit() returns, destruction undoes everything.
class PageClaim {
 public:
  explicit PageClaim(PageStore& store) : store_(store) {}
  ~PageClaim();
  PageClaim(const PageClaim&) = delete;
  PageClaim& operator=(const PageClaim&) = delete;

  /// Notes that this layer, not noted before, is about to get `tokens` more tokens. Throws
  /// std::bad_alloc.
  void add(detail::KvLayer& layer, int64_t tokens);
  /// Gives every layer its pages. Throws Error (resources) that says how many are missing, and
  /// Error (resources) or std::bad_alloc where memory ends.
  void commit();

 private:
  struct Need {
    detail::KvLayer* layer;
    int64_t fresh;  ///< pages behind the last
    bool copy;      ///< the page that the next token goes into is shared: it gets its own
    int64_t pages() const { return fresh + (copy ? 1 : 0); }
  };

  /// The page that the next token goes into, where there is one with tokens of the layer already.
  static int32_t& last_page(detail::KvLayer& layer) {
    return layer.pages[static_cast<size_t>(layer.len / KvCache::page_size)];
  }

  PageStore& store_;
  std::vector<Need> needs_;
  std::vector<int32_t> taken_;  ///< in the order of needs_
};

}  // namespace gqa
