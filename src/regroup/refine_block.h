// Tuning one layer's attention, by gradients, to an output that is wanted of it.
#pragma once

#include <functional>
#include <vector>

#include "regroup/windowed_block.h"

namespace gqa {

inline constexpr int refine_checks = 12;  ///< of the error, on the way

struct RefineOptions {
  int steps = 0;        ///< gradient steps at most, at each of the rates that are tried
  int64_t windows = 2;  ///< of text, in each step
  double rate = 0.12;   ///< the highest, relative to a matrix's root mean square
  uint64_t seed = 0;    ///< of the windows' order
  int64_t layer = 0;    ///< likewise
};

/// Errors are WindowedBlock::error()'s, on windows held out (on all of them where there are too
/// few).
struct RefineResult {
  Heads heads;
  double before = 0;
  double after = 0;
  std::vector<double> each;  ///< after, window by window
  int steps = 0;             ///< that were made
  int kept = 0;              ///< after how many of them heads are; 0: where they began
  bool diverged = false;     ///< stopped since the error was no longer finite
};

/// Brings the output of `heads`, and what the MLP makes of it, close to the goal: Adam (Kingma and
/// Ba 2015) on q, k, v and o together, on a few windows a step, at rates that rise for some steps
/// and then fall as a cosine does. Of the weights on the way those are kept whose error is least,
/// the first among them: it never grows. Stops early where it does not fall any more, and goes on
/// from the best with a fifth of the rate, down to a 125th. No bit depends on the number of
/// threads. `step` is called at every step, and may throw.
RefineResult refine_block(Context::Impl& context, const BlockShape& shape, const BlockGoal& goal,
                          const Heads& heads, const RefineOptions& options,
                          const std::function<void()>& step = {});

}  // namespace gqa
