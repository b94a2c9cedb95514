// Memory of pages: slabs of it, on huge pages where the system has them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace gqa {

/// Pages of one size, known by ids from 0 on, aligned to a cache line. A cache is read as fast as
/// memory goes, and translating addresses 4 KiB at a time costs a tenth of that (measured): slabs
/// are whole huge pages, and the system is asked to use such. What has not been written to takes
/// no memory.
class SlabMemory {
 public:
  explicit SlabMemory(int64_t page_bytes);

  /// There is memory for pages [0, pages). Throws Error (resources) or std::bad_alloc where memory
  /// ends; all is then as it was.
  void grow(int64_t pages);
  std::byte* data(int32_t page) const {
    const int64_t slab = page >> shift_;
    return slabs_[static_cast<size_t>(slab)].get() + (page - (slab << shift_)) * stride_;
  }
  /// Gives back to the system what only this page lies in; its content is lost.
  void give_back(int32_t page) noexcept;

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };

  int64_t stride_;      ///< bytes from one page to the next
  int shift_;           ///< a slab holds 2^shift_ pages
  int64_t slab_bytes_;  ///< 0 where that can't be counted
  std::vector<std::unique_ptr<std::byte, Free>> slabs_;
};

}  // namespace gqa
