// Query heads that share a KV head.
#pragma once

#include <cstdint>
#include <vector>

#include "gqa/config.h"
#include "io/json.h"

namespace gqa {

/// ModelConfig::group_sizes of a config whose other fields are read. Throws Error (bad_data) unless
/// each layer's groups part its query heads among its KV heads.
std::vector<std::vector<int64_t>> read_group_sizes(const JsonFields& config, const ModelConfig& c);

}  // namespace gqa
