#include "kv/page_claim.h"

#include <algorithm>

#include "core/checked.h"
#include "core/fail.h"

namespace gqa {

using detail::KvLayer;

void PageClaim::add(KvLayer& layer, int64_t tokens) {
  const int64_t wanted = ceil_div(layer.len + tokens, KvCache::page_size);
  const int64_t fresh = std::max<int64_t>(0, wanted - std::ssize(layer.pages));
  const bool copy =
      tokens > 0 && layer.len % KvCache::page_size != 0 && layer.pool->is_shared(last_page(layer));
  if (fresh == 0 && !copy) return;
  needs_.push_back({&layer, fresh, copy});
  // Given up at once: whoever is left alone with the page needs no copy, which may be another layer
  // of this claim.
  if (copy) layer.pool->drop(last_page(layer));
}

PageClaim::~PageClaim() {
  size_t next = 0;
  for (const Need& need : needs_) {
    KvLayer& layer = *need.layer;
    if (need.copy) layer.pool->hold(last_page(layer));
    for (int64_t i = 0; i < need.pages() && next < taken_.size(); ++i) {
      layer.pool->drop(taken_[next++]);
    }
  }
}

void PageClaim::commit() {
  int64_t needed = 0;
  for (const Need& need : needs_) needed += need.pages();
  if (const int64_t left = store_.left(); needed > left) {
    const int64_t missing = needed - left;
    fail(ErrorKind::resources, "KV cache: {} missing: {} needed, {} left of {}",
         missing == 1 ? "1 page is" : fmt::format("{} pages are", missing), needed, left,
         store_.budget());
  }
  taken_.reserve(static_cast<size_t>(needed));
  for (const Need& need : needs_) {
    KvLayer& layer = *need.layer;
    // Twice what it takes, so that a table that grows page by page is seldom copied.
    const size_t wanted = layer.pages.size() + static_cast<size_t>(need.fresh);
    if (wanted > layer.pages.capacity()) layer.pages.reserve(2 * wanted);
    for (int64_t i = 0; i < need.pages(); ++i) taken_.push_back(store_.take(*layer.pool));
  }
  // From here on nothing can fail.
  size_t next = 0;
  for (const Need& need : needs_) {
    KvLayer& layer = *need.layer;
    const int64_t parts = layer.pool->parts();
    if (need.copy) {
      const int32_t copy = taken_[next++];
      for (int64_t part = 0; part < parts; ++part) {
        const std::span<const std::byte> from = layer.pool->part(last_page(layer), part);
        std::copy(from.begin(), from.end(), layer.pool->part(copy, part).begin());
      }
      last_page(layer) = copy;
    }
    for (int64_t i = 0; i < need.fresh; ++i) {
      const int32_t page = taken_[next++];
      for (int64_t part = 0; part < parts; ++part) {
        std::ranges::fill(layer.pool->part(page, part), std::byte{0});
      }
      layer.pages.push_back(page);
    }
  }
  needs_.clear();
}

}  // namespace gqa
