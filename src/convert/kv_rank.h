// Fewer numbers per key and value.
#pragma once

#include <cstdint>
#include <vector>

#include "convert/calibrator.h"
#include "convert/source.h"
#include "gqa/convert.h"

namespace gqa {

/// Throws Error (usage) for options that do not go with kv_rank.
void check_kv_rank(const ConvertOptions& options);
/// The same for a rank that is odd or not below the model's head size.
void check_kv_rank(const ModelConfig& config, int64_t kv_rank);

/// The rotary planes that keys keep: by the text where there is a calibrator, else by the weights.
std::vector<int64_t> plan_planes(const SourceModel& source, int64_t kv_rank,
                                 const std::vector<HeadGroups>& groups, Calibrator* calibrator,
                                 const Progress& progress);

/// Per layer, each KV head in a group of its own.
std::vector<HeadGroups> every_head_alone(const ModelConfig& config);

}  // namespace gqa
