#include "io/per_layer_form.h"

#include <fmt/core.h>

namespace gqa {

static constexpr std::string_view prefix = "gqa_";

std::string per_layer_type(std::string_view family) { return fmt::format("{}{}", prefix, family); }

bool is_per_layer_type(std::string_view model_type) { return model_type.starts_with(prefix); }

std::string_view family_name(std::string_view model_type) {
  return is_per_layer_type(model_type) ? model_type.substr(prefix.size()) : model_type;
}

}  // namespace gqa
