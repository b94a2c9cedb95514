#include "regroup/windows.h"

#include <algorithm>
#include <utility>

namespace gqa {
namespace {

constexpr int64_t held_out_every = 8;
constexpr int64_t fewest_windows = 4;  ///< of which one is held out

}  // namespace

bool is_held_out(int64_t window, int64_t windows) {
  const int64_t every = std::min(held_out_every, windows);
  return windows >= fewest_windows && window % every == every - 1;
}

WindowSplit::WindowSplit(int64_t windows) {
  for (int64_t w = 0; w < windows; ++w) {
    (is_held_out(w, windows) ? checked : used).push_back(w);
  }
  if (checked.empty()) checked = used;
}

Turns::Turns(std::vector<int64_t> windows, Random random)
    : windows_(std::move(windows)), next_(windows_.size()), random_(random) {}

void Turns::draw(std::span<int64_t> some) {
  for (int64_t& window : some) {
    if (next_ == windows_.size()) {
      for (size_t i = windows_.size(); i > 1; --i) {
        std::swap(windows_[i - 1], windows_[random_.below(i)]);
      }
      next_ = 0;
    }
    window = windows_[next_++];
  }
}

}  // namespace gqa
