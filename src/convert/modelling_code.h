// What transformers needs for models that no class of its own can be (io/per_layer_form.h).
#pragma once

#include <string_view>

#include "gqa/config.h"
#include "io/json.h"

namespace gqa {

inline constexpr const char* modelling_code_name = "modeling_gqa.py";

/// The file's content.
std::string_view modelling_code();

/// Sets the fields of a config.json that say how many KV heads there are and which code runs the
/// model. A uniform model becomes (again) one of its family's. Another gets a model_type of ours,
/// with the code under `auto_map`, and num_key_value_heads as a list even where all layers have the
/// same number: transformers' own classes, asked for by name, refuse a list and warn of nothing
/// else.
void set_model_type(Json& config, const ModelConfig& result);

}  // namespace gqa
