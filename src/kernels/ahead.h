// Prefetching beside other work.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/kernels.h"

namespace gqa::kernels {

/// What one prefetch brings: a cache line, of the processors that this is for.
inline constexpr int64_t ahead_line = 64;

/// The least share of so many lines of which `shares` are all of them. In 32 bits: some processors
/// take a hundred cycles to divide 64, and this is asked several times for each block.
inline int64_t share_of(int64_t lines, int64_t shares) {
  const auto n = static_cast<uint32_t>(shares);
  return (static_cast<uint32_t>(lines) + n - 1) / n;
}

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
    stride_ = share_of(lines, steps) * line;
  }
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
  static constexpr int64_t line = ahead_line;
  const char* next_ = nullptr;
  const char* end_ = nullptr;
  const char* later_ = nullptr;
  const char* later_end_ = nullptr;
  bool second_level_ = false;
  int64_t far_ = 0;
  int64_t stride_ = 0;
};

/// Passes of a product over its columns: passes(rows) for each tile of at_once rows, and for one of
/// those that are left.
template <typename Passes>
int64_t passes_over(int64_t rows, int64_t at_once, const Passes& passes) {
  if (rows <= at_once) return passes(rows);
  const int64_t left = rows % at_once;
  return rows / at_once * passes(at_once) + (left == 0 ? 0 : passes(left));
}

/// Prefetching in the middle of products. Each pass over columns asks for its share, evenly: a step
/// asks for as much as it reads, at least a line. How many steps ask is known before they begin, so
/// that none has to look at what is left.
class AheadSteps {
 public:
  AheadSteps() = default;
  AheadSteps(const Ahead& ahead, int64_t passes)
      : pieces_(ahead.pieces), second_level_(ahead.second_level) {
    const int64_t lines = (pieces_[0].bytes + pieces_[1].bytes) / ahead_line;
    share_ = share_of(lines, passes) * ahead_line;
    skip(0);
  }

  /// Asks for `bytes` at p, which lie in the second-level cache alone if that is meant. In a loop:
  /// processors that are asked for many lines in a few cycles keep loads waiting.
  [[gnu::always_inline]] static void ask(const char* p, int64_t bytes, bool second_level) {
#pragma GCC unroll 1
    for (const char* end = p + bytes; p < end; p += ahead_line) {
      if (second_level) {
        __builtin_prefetch(p, 0, 2);
      } else {
        __builtin_prefetch(p);
      }
    }
  }

  /// From here on one more share may be asked for.
  void begin_pass() { allowed_ += share_; }
  /// Only the second-level cache is meant.
  bool second_level() const { return second_level_; }
  /// Where the next steps ask, which go on through one piece.
  const char* next() const { return pieces_[0].data; }
  /// How many of them, at most `most`, ask for `bytes` each, the last one perhaps for more than is
  /// wanted.
  int64_t steps(int64_t bytes, int64_t most) const {
    const int64_t wanted = pieces_[0].bytes < allowed_ ? pieces_[0].bytes : allowed_;
    if (wanted <= 0) return 0;
    const int64_t n = (wanted + bytes - 1) / bytes;
    return n < most ? n : most;
  }
  /// Those steps have asked for so many bytes; what lies beyond the piece does not count.
  void skip(int64_t bytes) {
    allowed_ -= bytes < pieces_[0].bytes ? bytes : pieces_[0].bytes;
    pieces_[0].data += bytes;
    pieces_[0].bytes -= bytes;
    if (pieces_[0].bytes <= 0) pieces_ = {pieces_[1], {}};
  }
  /// Asks for all that the passes have left.
  void finish() {
    for (const Ahead::Piece& piece : pieces_) ask(piece.data, piece.bytes, second_level_);
  }

 private:
  std::array<Ahead::Piece, 2> pieces_;
  bool second_level_ = false;
  int64_t share_ = 0;    ///< bytes
  int64_t allowed_ = 0;  ///< bytes, less those that steps have asked for beyond them
};

}  // namespace gqa::kernels
