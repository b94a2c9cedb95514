// What learning from a text takes: memory, and enough of the text.
#pragma once

#include <string>

#include "gqa/config.h"
#include "gqa/convert.h"
#include "regroup/calibration.h"

namespace gqa {

/// Bytes of the whole program at its peak, mapped files aside: an estimate.
int64_t calibration_memory(const ModelConfig& config, const CalibrationWindows& text,
                           const ConvertOptions& options);
/// Of it what the caches of sampled text take.
int64_t sampling_memory(const ModelConfig& config, const Calibration& calibration);

/// Where that many tokens are too few for refining layers of that many KV heads: what a person
/// should know of it; else empty.
std::string few_tokens(const ModelConfig& config, int64_t tokens, int64_t kv_heads);

}  // namespace gqa
