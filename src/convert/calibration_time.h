// How long learning from a text will take: operations counted, and divided by the machine's rates.
#pragma once

#include <vector>

#include "convert/source.h"
#include "gqa/context.h"
#include "gqa/convert.h"
#include "regroup/calibration.h"

namespace gqa {

/// An attention block, as far as its operations go.
struct BlockSize {
  int64_t inputs = 0;  ///< the width, and 1 where there are biases
  int64_t width = 0;
  int64_t q = 0;   ///< query heads times head size
  int64_t kv = 0;  ///< KV heads times head size
};

/// Floating-point operations, by the kind of work: each has a rate of its own.
struct CalibrationWork {
  double sampling = 0;  ///< text that the model writes
  double forward = 0;   ///< attention blocks on text, checks on the way among them
  double backward = 0;  ///< gradient steps, what follows their forward
  double moments = 0;   ///< sums over tokens in double
  double mlp = 0;       ///< text through MLPs
};

/// Of a window of n tokens, causal.
double forward_flops(const BlockSize& block, int64_t n);
double backward_flops(const BlockSize& block, int64_t n);
double moments_flops(const BlockSize& block, int64_t q_heads, int64_t n);
double mlp_flops(const ModelConfig& config, int64_t n);
/// What a gradient step does behind the forward of the block.
double step_flops(const ModelConfig& config, const BlockSize& block, int64_t n);
/// Of one token that is sampled, with so many before it.
double sampling_flops(const ModelConfig& config, int64_t kv_len);

/// All of a conversion to `result` with these options: every layer that changes makes all its
/// steps. Searches of budgets and of rotary planes are left out.
CalibrationWork count_work(const ModelConfig& source, const ModelConfig& result,
                           const ConvertOptions& options, const CalibrationWindows& text);

/// Seconds of that conversion, by rates that are measured, in a second or two, on the source's
/// first layer and some tokens of the text.
double estimate_seconds(const SourceModel& source, const ModelConfig& result,
                        const ConvertOptions& options, const CalibrationWindows& text);

}  // namespace gqa
