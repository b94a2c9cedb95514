// The rotary embedding's fields in a config.json.
#pragma once

#include <cstdint>

#include "gqa/config.h"
#include "io/json.h"

namespace gqa {

/// Reads `rope_parameters`, or the older `rope_theta` with `rope_scaling`, as transformers does.
/// Throws Error (bad_data) for scalings other than default, linear, llama3, yarn and longrope.
RopeConfig read_rope(const JsonFields& config, int64_t max_positions, int64_t head_dim);

}  // namespace gqa
