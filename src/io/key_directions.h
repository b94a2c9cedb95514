// key_directions.safetensors: the principal directions of a model's keys, beside its weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gqa/config.h"

namespace gqa {

/// Not a name that anybody takes for weights.
inline constexpr const char* key_directions_stem = "key_directions";
inline constexpr const char* key_directions_name = "key_directions.safetensors";

/// The tensor of a layer: f32 [kv_heads, head_dim, head_dim], orthonormal rows in order of falling
/// energy of the keys after rotary embedding.
std::string key_directions_tensor(int64_t layer);

bool has_key_directions(const std::filesystem::path& dir);

/// Per layer, [kv_heads][head_dim][head_dim]. Throws Error: no_input or io where the file can't be
/// read; bad_data where it is not valid, lacks a layer, has tensors of another shape or type than
/// the config calls for, or rows that are not orthonormal.
std::vector<std::vector<float>> read_key_directions(const std::filesystem::path& dir,
                                                    const ModelConfig& config);

}  // namespace gqa
