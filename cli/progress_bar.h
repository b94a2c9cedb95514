// A line on the terminal that shows how far long work is.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
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
  /// Seconds, to go by the pace of this phase so far, until it is done; none where that is not
  /// known.
  std::optional<double> seconds_left(std::string_view phase) const;

 private:
  using Clock = std::chrono::steady_clock;

  /// A phase may give way to others and come back.
  struct Phase {
    Clock::time_point start;
    double first = 0;  ///< share that was done then
    double share = 0;  ///< that is done now

    std::optional<double> seconds_left() const;
  };

  void update(std::string_view what, int64_t done, int64_t total);
  void draw(std::string_view what, const Phase& phase);

  bool shown_ = false;  ///< wanted at all
  bool colour_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_ = start_;
  std::map<std::string, Phase, std::less<>> phases_;
  size_t width_ = 0;  ///< columns on the screen now
};

}  // namespace gqa::cli
