// Memory for kernels: aligned to a cache line, uninitialised, grow-only.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "core/checked.h"
#include "core/fail.h"

namespace gqa {

class AlignedBuffer {
 public:
  static constexpr int64_t alignment = 64;  ///< bytes

  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t bytes) { reserve(bytes); }

  /// At least `bytes` bytes; growing loses the content. Throws Error (resources).
  void* reserve(int64_t bytes) {
    if (bytes > capacity_) {
      data_.reset();
      capacity_ = 0;
      const int64_t rounded = round_up(bytes, alignment);
      data_.reset(std::aligned_alloc(alignment, static_cast<size_t>(rounded)));
      if (!data_) fail(ErrorKind::resources, "out of memory: {} bytes wanted", bytes);
      capacity_ = rounded;
    }
    return data_.get();
  }

  void* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace gqa
