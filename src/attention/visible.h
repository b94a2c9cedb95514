// From what single tokens see to what tiles and key blocks need.
#pragma once

#include <algorithm>
#include <cstdint>

#include "attention/shape.h"

namespace gqa {

/// Keys that the tokens of a tile see: two runs, as of visible_keys(), which may overlap.
class TileKeys {
 public:
  /// Of query tokens [t_begin, t_end), at least one.
  TileKeys(const Mask& mask, const ItemShape& shape, int64_t t_begin, int64_t t_end)
      : runs_(visible_keys(mask, shape.q_start + t_begin, shape.keys)) {
    const VisibleKeys last = visible_keys(mask, shape.q_start + t_end - 1, shape.keys);
    for (size_t i = 0; i < runs_.size(); ++i) {
      common_[i] = {last[i].begin, runs_[i].end};
      runs_[i].end = last[i].end;
    }
  }

  const VisibleKeys& runs() const { return runs_; }

  /// Some key in [begin, end) may be seen.
  bool touch(int64_t begin, int64_t end) const {
    return std::any_of(runs_.begin(), runs_.end(), [&](const KeyRange& run) {
      return std::max(run.begin, begin) < std::min(run.end, end);
    });
  }

  /// Every token sees all keys in [begin, end).
  bool all_see(int64_t begin, int64_t end) const {
    return std::any_of(common_.begin(), common_.end(),
                       [&](const KeyRange& run) { return run.begin <= begin && end <= run.end; });
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
  VisibleKeys runs_;
  VisibleKeys common_;  ///< of the runs, what every token sees; perhaps nothing
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

}  // namespace gqa
