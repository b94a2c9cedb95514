// config.json of models that no family of Hugging Face's can be: KV heads that differ between
// layers, or unequal groups. Such a folder brings its own modelling code (convert/modeling_gqa.py),
// under a model_type that nobody knows, so that whoever does not run that code refuses the folder.
#pragma once

#include <string>
#include <string_view>

namespace gqa {

/// ModelConfig::group_sizes; null for a layer with equal groups.
inline constexpr const char* group_sizes_key = "gqa_group_sizes";

/// "gqa_llama" for "llama".
std::string per_layer_type(std::string_view family);
bool is_per_layer_type(std::string_view model_type);
/// The family that a model_type is of: "llama" for "gqa_llama" and "llama".
std::string_view family_name(std::string_view model_type);

}  // namespace gqa
