// Prefetching beside other work.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace gqa::kernels {

/// Spreads prefetching evenly over the steps of a loop.
class AheadLines {
 public:
  AheadLines() = default;
  AheadLines(const Ahead& ahead, int64_t steps)
      : next_(ahead.pieces[0].data),
        end_(next_ + ahead.pieces[0].bytes),
        later_(ahead.pieces[1].data),
        later_end_(later_ + ahead.pieces[1].bytes),
        second_level_(ahead.second_level),
        far_(ahead.far) {
    const int64_t lines = (ahead.pieces[0].bytes + ahead.pieces[1].bytes) / line;
    stride_ = (lines + steps - 1) / steps * line;
  }
  bool any() const { return next_ != end_; }
  /// Hardly anything where nothing is left: it is in the middle of products.
  [[gnu::always_inline]] void step() {
    if (next_ == end_) return;
    const char* until = next_ + stride_;
    if (until > end_) until = end_;
    if (far_ != 0) {
      for (const char* p = next_; p < until; p += line) __builtin_prefetch(p + far_, 0, 2);
    }
    if (second_level_) {
      for (; next_ < until; next_ += line) __builtin_prefetch(next_, 0, 2);
    } else {
      for (; next_ < until; next_ += line) __builtin_prefetch(next_);
    }
    if (next_ == end_) {
      next_ = later_;
      end_ = later_end_;
      later_ = later_end_;
    }
  }

 private:
  static constexpr int64_t line = 64;
  const char* next_ = nullptr;
  const char* end_ = nullptr;
  const char* later_ = nullptr;
  const char* later_end_ = nullptr;
  bool second_level_ = false;
  int64_t far_ = 0;
  int64_t stride_ = 0;
};

}  // namespace gqa::kernels
