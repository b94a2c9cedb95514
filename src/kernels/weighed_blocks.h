// Which blocks of a stretch a few rows see.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace gqa::kernels {

/// Those blocks of which some of rows [row, row + n) see a key, by their number: the others need no
/// work.
class SeenBlocks {
 public:
  SeenBlocks(std::span<const WeighedBlock> blocks, int64_t row, int64_t n) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      const uint64_t* visible = blocks[i].visible + row;
      const bool any = std::any_of(visible, visible + n, [](uint64_t bits) { return bits != 0; });
      if (any) numbers_[count_++] = i;
    }
  }
  size_t size() const { return count_; }
  const size_t* begin() const { return numbers_.data(); }
  const size_t* end() const { return numbers_.data() + count_; }

 private:
  std::array<size_t, stretch_blocks> numbers_;
  size_t count_ = 0;
};

}  // namespace gqa::kernels
