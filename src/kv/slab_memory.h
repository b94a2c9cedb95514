// Memory of pages: slabs of it, on huge pages where the system has them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace gqa {

/// Pages of one size, known by ids from 0 on, each of `parts` equal parts, aligned to a cache line.
/// Part i of a page lies beside part i of its neighbours, not beside the page's other parts: who
/// reads one part of page after page then reads memory in one go, which is what prefetchers follow
/// (in pieces of 16 KiB a third of the bandwidth is lost, in pieces of 32 KiB a fifth: measured).
/// Translating addresses 4 KiB at a time costs a tenth: slabs are whole huge pages, and the system
/// is asked to use such. What has not been written to takes no memory.
class SlabMemory {
 public:
  SlabMemory(int64_t part_bytes, int64_t parts);

  /// There is memory for pages [0, pages). Throws Error (resources) or std::bad_alloc where memory
  /// ends; all is then as it was.
  void grow(int64_t pages);
  std::byte* data(int32_t page, int64_t part) const {
    const int64_t slab = page >> shift_;
    return slabs_[static_cast<size_t>(slab)].get() +
           ((part << shift_) + page - (slab << shift_)) * stride_;
  }
  /// Gives back to the system what only this page lies in; its content is lost.
  void give_back(int32_t page) noexcept;

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };

  int64_t parts_;
  int64_t stride_;      ///< bytes from a part of one page to that of the next
  int shift_;           ///< a slab holds 2^shift_ pages
  int64_t slab_bytes_;  ///< 0 where that can't be counted
  std::vector<std::unique_ptr<std::byte, Free>> slabs_;
};

}  // namespace gqa
