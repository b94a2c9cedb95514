#include "convert/modelling_code.h"

#include <fmt/core.h>

#include <cctype>
#include <string>

#include "io/json_value.h"
#include "io/per_layer_form.h"

namespace gqa {
namespace {

/// "LlamaForCausalLM" is the family's name and what its class is for.
std::string class_name(std::string_view prefix, std::string family, std::string_view what) {
  family[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(family[0])));
  return fmt::format("{}{}{}", prefix, family, what);
}

void set_plain(Json& config, const ModelConfig& result) {
  config["num_key_value_heads"] = result.kv_heads.front();
  config.erase(group_sizes_key);
  if (!is_per_layer_type(config["model_type"].get<std::string>())) return;
  config["model_type"] = result.model_type;
  config["architectures"] = {class_name("", result.model_type, "ForCausalLM")};
  config.erase("auto_map");
}

void set_per_layer(Json& config, const ModelConfig& result) {
  const auto ours = [&](std::string_view what) {
    return class_name("Gqa", result.model_type, what);
  };
  const auto in_file = [&](std::string_view what) {
    return fmt::format("modeling_gqa.{}", ours(what));
  };
  config["model_type"] = per_layer_type(result.model_type);
  config["architectures"] = {ours("ForCausalLM")};
  config["auto_map"] = {{"AutoConfig", in_file("Config")},
                        {"AutoModelForCausalLM", in_file("ForCausalLM")}};
  config["num_key_value_heads"] = result.kv_heads;
  config.erase(group_sizes_key);
  if (!result.has_unequal_groups()) return;
  Json& sizes = config[group_sizes_key] = Json::array();
  for (const auto& layer : result.group_sizes)
    sizes.push_back(layer.empty() ? Json() : Json(layer));
}

}  // namespace

void set_model_type(Json& config, const ModelConfig& result) {
  if (result.is_uniform()) {
    set_plain(config, result);
  } else {
    set_per_layer(config, result);
  }
}

}  // namespace gqa
