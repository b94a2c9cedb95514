#include "kv/slab_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "core/fail.h"

namespace gqa {
namespace {

constexpr int64_t huge_page = int64_t{2} << 20;
/// What a slab takes, if its pages are not larger: few slabs, and little that is not used at the
/// end.
constexpr int64_t usual_slab = 4 * huge_page;

}  // namespace

SlabMemory::SlabMemory(int64_t part_bytes, int64_t parts) : parts_(parts), stride_(part_bytes) {
  const auto rounded = checked_add(part_bytes, AlignedBuffer::alignment);
  if (rounded) stride_ = round_up(part_bytes, AlignedBuffer::alignment);
  const auto page_bytes = checked_mul(stride_, parts_);
  const int64_t pages = page_bytes ? std::max<int64_t>(1, usual_slab / *page_bytes) : 1;
  shift_ = static_cast<int>(std::bit_width(static_cast<uint64_t>(pages))) - 1;
  const auto bytes = page_bytes ? checked_mul(*page_bytes, int64_t{1} << shift_) : page_bytes;
  const auto whole = bytes ? checked_add(*bytes, huge_page) : bytes;
  slab_bytes_ = whole ? round_up(*bytes, huge_page) : 0;
}

void SlabMemory::grow(int64_t pages) {
  while (std::ssize(slabs_) << shift_ < pages) {
    slabs_.reserve(slabs_.size() + 1);
    void* memory = slab_bytes_ == 0 ? nullptr
                                    : std::aligned_alloc(static_cast<size_t>(huge_page),
                                                         static_cast<size_t>(slab_bytes_));
    if (memory == nullptr) {
      fail(ErrorKind::resources, "out of memory: {} x {} bytes wanted", parts_, stride_);
    }
    slabs_.emplace_back(static_cast<std::byte*>(memory));
#ifdef MADV_HUGEPAGE
    // A wish: without it, only speed is lost.
    static_cast<void>(madvise(memory, static_cast<size_t>(slab_bytes_), MADV_HUGEPAGE));
#endif
  }
}

void SlabMemory::give_back(int32_t page) noexcept {
  const auto system_page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (int64_t part = 0; part < parts_; ++part) {
    const auto begin = reinterpret_cast<uintptr_t>(data(page, part));
    const uintptr_t skipped = (system_page - begin % system_page) % system_page;
    const uintptr_t end = (begin + static_cast<uintptr_t>(stride_)) / system_page * system_page;
    if (begin + skipped >= end) continue;
    static_cast<void>(madvise(data(page, part) + skipped, end - begin - skipped, MADV_DONTNEED));
  }
}

}  // namespace gqa
