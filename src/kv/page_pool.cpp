#include "kv/page_pool.h"

#include <algorithm>
#include <limits>

namespace gqa {

int32_t PagePool::pop(int32_t& list) noexcept {
  const int32_t page = list;
  list = at(page).next;
  return page;
}

void PagePool::push(int32_t& list, int32_t page) noexcept {
  at(page).next = list;
  list = page;
}

int32_t PagePool::take() {
  int32_t page = none;
  if (free_list_ != none) {
    page = pop(free_list_);
    --free_;
  } else {
    if (empty_list_ == none) {
      memory_.grow(std::ssize(pages_) + 1);
      pages_.emplace_back();
      push(empty_list_, static_cast<int32_t>(pages_.size()) - 1);
    }
    page = pop(empty_list_);
  }
  at(page).holders = 1;
  ++held_;
  return page;
}

void PagePool::hold(int32_t page) noexcept {
  if (++at(page).holders == 2) ++shared_;
}

void PagePool::drop(int32_t page) noexcept {
  const int32_t holders = --at(page).holders;
  if (holders == 1) --shared_;
  if (holders > 0) return;
  --held_;
  ++free_;
  push(free_list_, page);
}

void PagePool::trim() noexcept {
  const int32_t page = pop(free_list_);
  --free_;
  memory_.give_back(page);
  push(empty_list_, page);
}

PageStore::PageStore(int64_t max_pages) {
  constexpr int64_t ids = std::numeric_limits<int32_t>::max();
  budget_ = max_pages == 0 ? ids : std::min(max_pages, ids);
}

PagePool& PageStore::pool(int64_t part_bytes, int64_t parts) {
  for (const auto& pool : pools_) {
    if (pool->part_bytes() == part_bytes && pool->parts() == parts) return *pool;
  }
  return *pools_.emplace_back(std::make_unique<PagePool>(part_bytes, parts));
}

int64_t PageStore::left() const {
  int64_t left = budget_;
  for (const auto& pool : pools_) left -= pool->held();
  return left;
}

int32_t PageStore::take(PagePool& pool) {
  if (pool.free() == 0) {
    int64_t unused = left();
    for (const auto& other : pools_) unused -= other->free();
    // All of `left` is free pages then, and none of this size.
    if (unused == 0) {
      const auto has_free = [](const auto& other) { return other->free() > 0; };
      (*std::find_if(pools_.begin(), pools_.end(), has_free))->trim();
    }
  }
  return pool.take();
}

}  // namespace gqa
