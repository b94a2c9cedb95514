// Text that a model writes itself, to calibrate with.
#pragma once

#include <functional>

#include "gqa/model.h"
#include "regroup/calibration.h"

namespace gqa {

/// Windows that are sampled side by side: so many that reading the weights is shared, and so few
/// that their caches take 1 GiB at most, or one window's.
int64_t sampled_at_a_time(const ModelConfig& config, int64_t window);

/// Adds windows that the model samples (temperature 1, from BOS, or from any token where there is
/// none), `tokens` in all, at most `window` each: a window ends where an end token comes. Text of
/// the model's own is spread as the text that it was trained on, and there is as much of it as one
/// likes; more of it keeps a fit from following a few thousand tokens too closely. The same seed
/// gives the same tokens where a machine computes the same logits. `interrupt` may throw.
void add_sampled_windows(Context& context, const Model& model, int64_t tokens, int64_t window,
                         uint64_t seed, CalibrationWindows& text,
                         const std::function<void()>& interrupt = {});

}  // namespace gqa
