// Prefetching beside other work.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace gqa::kernels {

/// Spreads prefetching evenly over the steps of a loop.
class AheadLines {
 public:
  AheadLines(Ahead ahead, int64_t steps)
      : next_(static_cast<const char*>(ahead.data)),
        end_(next_ + ahead.bytes),
        stride_(ahead.bytes == 0 ? 0 : ((ahead.bytes / 64 + steps - 1) / steps) * 64) {}
  [[gnu::always_inline]] void step() {
    const char* until = next_ + stride_;
    if (until > end_) until = end_;
    for (; next_ < until; next_ += 64) __builtin_prefetch(next_);
  }

 private:
  const char* next_;
  const char* end_;
  int64_t stride_;
};

}  // namespace gqa::kernels
