// Windows of calibration text: which of them teach and which examine, and in what order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/random.h"

namespace gqa {

/// Whether a window takes no part in the steps: every eighth does not, where there are four.
bool is_held_out(int64_t window, int64_t windows);

/// Windows that steps are made on, and those on which errors are measured: those held out, or all
/// where there are too few.
struct WindowSplit {
  std::vector<int64_t> used, checked;

  explicit WindowSplit(int64_t windows);
};

/// Windows in an order that is drawn anew whenever all have had their turn.
class Turns {
 public:
  Turns(std::vector<int64_t> windows, Random random);

  void draw(std::span<int64_t> some);

 private:
  std::vector<int64_t> windows_;
  size_t next_;
  Random random_;
};

}  // namespace gqa
