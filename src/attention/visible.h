// From what single tokens see to what tiles and key blocks need.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>

#include "attention/shape.h"

namespace gqa {

/// Keys that the tokens of a tile see: two runs, as of visible_keys(), which may overlap, less what
/// is not selected.
class TileKeys {
 public:
  /// Of query tokens [t_begin, t_end), at least one, in a KV head.
  TileKeys(const Mask& mask, const ItemShape& shape, int64_t kv_head, int64_t t_begin,
           int64_t t_end)
      : shape_(&shape),
        kv_head_(kv_head),
        t_begin_(t_begin),
        t_end_(t_end),
        runs_(visible_keys(mask, shape.q_start + t_begin, shape.keys)) {
    const VisibleKeys last = visible_keys(mask, shape.q_start + t_end - 1, shape.keys);
    for (size_t i = 0; i < runs_.size(); ++i) {
      common_[i] = {ceil_div(last[i].begin, block_), runs_[i].end / block_};
      runs_[i].end = last[i].end;
      if (runs_[i].empty()) continue;
      touched_[i] = {runs_[i].begin / block_, ceil_div(runs_[i].end, block_)};
    }
  }

  /// Whatever is selected.
  const VisibleKeys& runs() const { return runs_; }

  /// Some key of blocks [begin, end) may be seen.
  bool touch(int64_t begin, int64_t end) const {
    for (const KeyRange& run : touched_) {
      const int64_t first = std::max(run.begin, begin);
      const int64_t last = std::min(run.end, end);
      if (first < last && any_selected(first, last)) return true;
    }
    return false;
  }

  /// Every token sees all keys of a block.
  bool all_see(int64_t block) const {
    for (const KeyRange& run : common_) {
      if (run.begin <= block && block < run.end) return all_selected(block);
    }
    return false;
  }

  /// The first block in [from, end) that touch() says yes to, or end.
  int64_t next(int64_t from, int64_t end) const {
    while (from < end && !touch(from, from + 1)) ++from;
    return from;
  }

  /// Blocks in [begin, end) that touch() says yes to.
  int64_t count(int64_t begin, int64_t end) const {
    int64_t n = 0;
    for (int64_t b = begin; b < end; ++b) n += touch(b, b + 1);
    return n;
  }

  /// The block that is likely to be worked on next from `block` on.
  int64_t after(int64_t block) const {
    return shape_->selected.words ? next(block, cover(block_).end) : block;
  }

  /// Chunks or blocks of `size` keys that hold all of them: [first, last).
  KeyRange cover(int64_t size) const {
    KeyRange all{INT64_MAX, 0};
    for (const KeyRange& run : runs_) {
      if (run.empty()) continue;
      all = {std::min(all.begin, run.begin / size), std::max(all.end, ceil_div(run.end, size))};
    }
    return all.empty() ? KeyRange{} : all;
  }

 private:
  static constexpr int64_t block_ = kernels::key_block;

  /// Ranges of blocks, for each run: nothing is divided for each block that is asked about.
  using Blocks = std::array<KeyRange, 2>;

  bool any_selected(int64_t begin, int64_t end) const {
    if (!shape_->selected.words) return true;
    for (int64_t t = t_begin_; t < t_end_; ++t) {
      for (int64_t b = begin; b < end; ++b) {
        if (shape_->selected_keys(t, kv_head_, b) != 0) return true;
      }
    }
    return false;
  }

  bool all_selected(int64_t block) const {
    if (!shape_->selected.words) return true;
    for (int64_t t = t_begin_; t < t_end_; ++t) {
      if (shape_->selected_keys(t, kv_head_, block) != ~uint64_t{0}) return false;
    }
    return true;
  }

  const ItemShape* shape_;
  int64_t kv_head_, t_begin_, t_end_;
  VisibleKeys runs_;
  Blocks touched_ = {};  ///< some token sees some key of these
  Blocks common_;        ///< every token sees all keys of these
};

/// The blocks of one stretch that a tile's tokens may see.
struct Stretch {
  Stretch(const TileKeys& keys, int64_t first, int64_t n) : end(first + n) {
    for (int64_t b = keys.next(first, end); b < end; b = keys.next(b + 1, end)) {
      memory_[count_++] = b;
    }
    blocks = {memory_.data(), count_};
  }
  Stretch(const Stretch&) = delete;

  int64_t end;  ///< behind its last block, seen or not
  std::span<const int64_t> blocks;

 private:
  std::array<int64_t, kernels::stretch_blocks> memory_;
  size_t count_ = 0;
};

/// Bit s is set where key `first` + s is among those keys.
inline uint64_t block_bits(const VisibleKeys& keys, int64_t first) {
  static_assert(kernels::key_block == 64, "a bit for each key of a block");
  uint64_t bits = 0;
  for (const KeyRange& run : keys) {
    const int64_t begin = std::clamp<int64_t>(run.begin - first, 0, 64);
    const int64_t end = std::clamp<int64_t>(run.end - first, 0, 64);
    if (begin < end) bits |= (~uint64_t{0} >> (64 - (end - begin))) << begin;
  }
  return bits;
}

/// The shortest range that holds all set bits; there is one.
inline kernels::Range range_of(uint64_t bits) {
  return {std::countr_zero(bits), 64 - std::countl_zero(bits)};
}

/// Calls body(row, rows, keys) for rows that see about the same keys, with the range of these:
/// `step` rows at a time: all where they are alike, else a few, so that little is computed in vain
/// at the edges of a mask. Rows that see nothing are left out.
template <typename Body>
void for_rows_alike(const uint64_t* visible, int64_t rows, int64_t step, const Body& body) {
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t n = std::min(step, rows - r);
    uint64_t any = 0;
    for (int64_t i = r; i < r + n; ++i) any |= visible[i];
    if (any != 0) body(r, n, range_of(any));
  }
}

}  // namespace gqa
