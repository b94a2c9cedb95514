// What a cache holds next, to be asked for while other keys and values are worked on.
#pragma once

#include <algorithm>
#include <cstdint>

#include "attention/blocks.h"
#include "attention/visible.h"
#include "kernels/ahead.h"

namespace gqa {

// Memory must not rest: each step of a stretch asks for its share of what the stretch reads, in
// sixteenths of what is read of a block: scoring it, its share of the softmax, and accumulating its
// values.
struct Shares {
  int64_t score, softmax, accumulate;
};
/// Where products are in tiles, which long stretches say, softmax of many rows takes as long as
/// they.
constexpr Shares shares_of(int64_t stretch, int64_t rows) {
  constexpr int64_t many = 16;
  return stretch > 1 && rows >= many ? Shares{5, 6, 5} : Shares{8, 1, 7};
}

/// Goes through what is read from some parts ahead on: a stretch's keys, block by block, then its
/// values, then the keys of the next. What lies at the same place of the next stretch, if caches
/// lie as they mostly do, is far ahead: stretches of several blocks do not read one line behind the
/// other, which processors would notice by themselves.
class PartsAhead {
 public:
  PartsAhead(const kernels::Table& kernels, const Kv& kv, int64_t kv_head, const TileKeys& keys,
             const Stretch& stretch)
      : kv_(kv), kv_head_(kv_head), keys_(keys), stretch_(stretch) {
    const auto n = static_cast<int64_t>(stretch.blocks.size());
    if (n < 2) {
      second_level_ = kernels.second_level;
      return;
    }
    for (const bool of_keys : {true, false}) {
      far_ += n * cached_part(kv, kv_head, stretch.blocks[0], of_keys).bytes;
    }
  }

  /// So many sixteenths of what is read of a block, which is two parts.
  kernels::Ahead take(int64_t sixteenths) {
    kernels::Ahead ahead{.second_level = second_level_, .far = far_};
    int64_t left = sixteenths * 2 * grains / 16;
    for (kernels::Ahead::Piece& piece : ahead.pieces) {
      if (left == 0) break;
      if (taken_ == grains) {
        part_ = part_at(next_++);
        taken_ = 0;
      }
      const int64_t n = std::min(left, grains - taken_);
      piece = slice(part_, taken_, taken_ + n);
      taken_ += n;
      left -= n;
    }
    return ahead;
  }

 private:
  static constexpr int64_t grains = 16;  ///< of a part
  static constexpr int64_t parts_ahead = 1;

  kernels::Ahead::Piece part_at(int64_t i) const {
    const auto n = static_cast<int64_t>(stretch_.blocks.size());
    const auto block = [&](int64_t at) { return stretch_.blocks[static_cast<size_t>(at)]; };
    if (i < n) return cached_part(kv_, kv_head_, block(i), true);
    if (i < 2 * n) return cached_part(kv_, kv_head_, block(i - n), false);
    return cached_part(kv_, kv_head_, keys_.after(stretch_.end + i - 2 * n), true);
  }

  /// Whole lines: the first one counts from the part's beginning.
  static kernels::Ahead::Piece slice(const kernels::Ahead::Piece& part, int64_t begin,
                                     int64_t end) {
    constexpr int64_t line = kernels::ahead_line;
    const int64_t from = part.bytes * begin / grains / line * line;
    const int64_t to = end == grains ? part.bytes : part.bytes * end / grains / line * line;
    return {part.data + from, to - from};
  }

  const Kv& kv_;
  int64_t kv_head_;
  const TileKeys& keys_;
  const Stretch& stretch_;
  bool second_level_ = false;
  int64_t far_ = 0;
  kernels::Ahead::Piece part_;
  int64_t taken_ = grains;  ///< of that part
  int64_t next_ = parts_ahead;
};

}  // namespace gqa
