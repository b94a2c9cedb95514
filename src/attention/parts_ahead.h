// What a cache holds next, to be asked for while other keys and values are worked on.
#pragma once

#include <algorithm>
#include <cstdint>

#include "attention/blocks.h"
#include "attention/visible.h"
#include "kernels/ahead.h"

namespace gqa {

// Memory must not rest: each step asks for its share of what is read. A block by itself asks for
// its values while it is scored, and for the keys of the next one after that: for these many bytes
// of them during softmax, for the rest while values are accumulated.
constexpr int64_t softmax_share(int64_t key_bytes) {
  return key_bytes / 8 / kernels::ahead_line * kernels::ahead_line;
}

// A stretch of several blocks is read in another order. Its shares are in sixteenths of what is
// read of a block: scoring it, its share of the softmax, and accumulating its values.
struct Shares {
  int64_t score, softmax, accumulate;
};
/// Where products are in tiles, which long stretches say, softmax of many rows takes as long as
/// they.
constexpr Shares shares_of(int64_t rows) {
  constexpr int64_t many = 16;
  return rows >= many ? Shares{5, 6, 5} : Shares{8, 1, 7};
}

/// Goes through what is read from some parts ahead on: a stretch's keys, block by block, then its
/// values, then the keys of the next. What lies at the same place of the next stretch, if caches
/// lie as they mostly do, is far ahead: stretches of several blocks do not read one line behind the
/// other, which processors would notice by themselves.
class PartsAhead {
 public:
  /// second_level: one block alone is brought there.
  PartsAhead(const KvBlocks& kv, const TileKeys& keys, const Stretch& stretch, bool second_level)
      : kv_(kv), keys_(keys), stretch_(stretch) {
    const auto n = static_cast<int64_t>(stretch.blocks.size());
    if (n < 2) {
      second_level_ = second_level;
      return;
    }
    const KvBlock first = kv.at(stretch.blocks[0]);
    far_ = n * (kv.cached_keys(first).bytes + kv.cached_values(first).bytes);
  }

  /// So many sixteenths of what is read of a block, which is two parts.
  kernels::Ahead take(int64_t sixteenths) {
    kernels::Ahead ahead{.second_level = second_level_, .far = far_};
    int64_t left = sixteenths * 2 * grains / 16;
    for (kernels::Ahead::Piece& piece : ahead.pieces) {
      if (left == 0) break;
      if (taken_ == grains) begin_part();
      const int64_t n = std::min(left, grains - taken_);
      taken_ += n;
      left -= n;
      piece = cut();
    }
    return ahead;
  }

 private:
  static constexpr int64_t grains = 16;  ///< of a part
  static constexpr int64_t parts_ahead = 1;

  void begin_part() {
    part_ = part_at(next_++);
    taken_ = 0;
    cut_ = 0;
  }

  kernels::Ahead::Piece part_at(int64_t i) const {
    const auto n = static_cast<int64_t>(stretch_.blocks.size());
    const auto block = [&](int64_t at) { return kv_.at(stretch_.blocks[static_cast<size_t>(at)]); };
    if (i < n) return kv_.cached_keys(block(i));
    if (i < 2 * n) return kv_.cached_values(block(i - n));
    return kv_.cached_keys(kv_.at(keys_.after(stretch_.end + i - 2 * n)));
  }

  /// The part up to what is taken now. Whole lines: the first one counts from the part's beginning.
  kernels::Ahead::Piece cut() {
    constexpr int64_t line = kernels::ahead_line;
    const int64_t from = cut_;
    cut_ = taken_ == grains ? part_.bytes : part_.bytes * taken_ / grains / line * line;
    return {part_.data + from, cut_ - from};
  }

  const KvBlocks& kv_;
  const TileKeys& keys_;
  const Stretch& stretch_;
  bool second_level_ = false;
  int64_t far_ = 0;
  kernels::Ahead::Piece part_;
  int64_t taken_ = grains;  ///< of that part
  int64_t cut_ = 0;         ///< bytes of it
  int64_t next_ = parts_ahead;
};

}  // namespace gqa
