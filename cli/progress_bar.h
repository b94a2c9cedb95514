// A line on the terminal that shows how far long work is.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "cli/args.h"
#include "gqa/progress.h"

namespace gqa::cli {

/// Drawn on standard error if that is a terminal, from the second second of the work on, and erased
/// at the end. Without --quiet only; no colour with NO_COLOR.
class ProgressBar {
 public:
  explicit ProgressBar(const Common& common);
  ~ProgressBar() { erase(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// Draws, and stops the work after a signal. Valid as long as this bar.
  Progress callback();
  void erase();

 private:
  using Clock = std::chrono::steady_clock;

  void update(std::string_view what, int64_t done, int64_t total);
  void draw(std::string_view what, double share);

  bool shown_ = false;  ///< wanted at all
  bool colour_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_ = start_;
  std::string what_;  ///< the phase at hand
  Clock::time_point phase_start_ = start_;
  size_t width_ = 0;  ///< columns on the screen now
};

}  // namespace gqa::cli
