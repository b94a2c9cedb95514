// The key directions that a model folder may bring along.
#pragma once

#include <filesystem>

#include "gqa/approx.h"
#include "gqa/config.h"

namespace gqa {

/// Reads DIR/key_directions.safetensors: for each layer N `model.layers.N.key_directions`, F32
/// [kv_heads, head_dim, head_dim], rows orthonormal, of most energy first. No layers where there is
/// no such file. Throws Error: io, bad_data (naming file and tensor) for a tensor that is missing,
/// unknown, of another shape or type, not finite, or not orthonormal to 0.001.
KeyDirections read_key_directions(const std::filesystem::path& dir, const ModelConfig& config);

}  // namespace gqa
