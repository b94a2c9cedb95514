// Pages of memory that several may hold: counts of holders, free pages, one budget for all sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kv/slab_memory.h"

namespace gqa {

/// Pages of one size, known by ids from 0, each of `parts` equal parts that lie apart (SlabMemory).
/// Nothing here scans pages: all numbers are kept.
/// Thread-safety: like a std::vector.
class PagePool {
 public:
  PagePool(int64_t part_bytes, int64_t parts)
      : part_bytes_(part_bytes), parts_(parts), memory_(part_bytes, parts) {}

  int64_t part_bytes() const { return part_bytes_; }
  int64_t parts() const { return parts_; }
  int64_t page_bytes() const { return part_bytes_ * parts_; }
  int64_t held() const { return held_; }      ///< pages with a holder
  int64_t shared() const { return shared_; }  ///< pages with several
  int64_t free() const { return free_; }      ///< pages without one

  std::span<std::byte> part(int32_t page, int64_t part) const {
    return {memory_.data(page, part), static_cast<size_t>(part_bytes_)};
  }
  bool is_shared(int32_t page) const { return at(page).holders > 1; }

  /// A page with one holder: a free one, else one from the system. Its content is anything. Throws
  /// Error (resources) or std::bad_alloc where memory ends.
  int32_t take();
  /// One more holder.
  void hold(int32_t page) noexcept;
  /// One holder less; without any, the page is free.
  void drop(int32_t page) noexcept;
  /// Gives the memory of one free page back to the system; there must be one.
  void trim() noexcept;

 private:
  static constexpr int32_t none = -1;

  struct Page {
    int32_t holders = 0;
    int32_t next = none;  ///< on its list, where it has no holder
  };

  Page& at(int32_t page) { return pages_[static_cast<size_t>(page)]; }
  const Page& at(int32_t page) const { return pages_[static_cast<size_t>(page)]; }
  int32_t pop(int32_t& list) noexcept;
  void push(int32_t& list, int32_t page) noexcept;

  int64_t part_bytes_;
  int64_t parts_;
  SlabMemory memory_;
  int64_t held_ = 0;
  int64_t shared_ = 0;
  int64_t free_ = 0;
  std::vector<Page> pages_;
  // Lists are threaded through the pages, so that giving a page up never needs memory.
  int32_t free_list_ = none;   ///< pages without a holder
  int32_t empty_list_ = none;  ///< ids whose memory went back to the system
};

/// Pools of all the sizes that somebody needs, under one budget of pages.
/// Thread-safety: like a std::vector.
class PageStore {
 public:
  /// max_pages: held or free; 0: as many as ids can tell apart.
  explicit PageStore(int64_t max_pages);

  /// The pool of pages like that, made at the first call. It stays where it is.
  PagePool& pool(int64_t part_bytes, int64_t parts);
  const std::vector<std::unique_ptr<PagePool>>& pools() const { return pools_; }

  int64_t budget() const { return budget_; }
  /// Pages that can still be taken, of whatever size.
  int64_t left() const;
  /// PagePool::take(), within the budget, of which something must be left: where free pages of
  /// other sizes use it up, one goes back to the system.
  int32_t take(PagePool& pool);

 private:
  int64_t budget_;
  std::vector<std::unique_ptr<PagePool>> pools_;
};

}  // namespace gqa
