#include "io/quantised.h"

#include "core/fail.h"

namespace gqa {
namespace {

struct Mark {
  std::string_view part;  ///< the last part of a tensor's name
  std::string_view scheme;
};

constexpr Mark marks[] = {
    {"qweight", "AWQ or GPTQ"},
    {"qzeros", "AWQ or GPTQ"},
    {"scales", "AWQ or GPTQ"},
    {"g_idx", "AWQ or GPTQ"},
    {"weight_scale_inv", "FP8"},
    {"weight_packed", "compressed-tensors"},
    {"weight_scale", "compressed-tensors"},
    {"weight_zero_point", "compressed-tensors"},
    {"absmax", "bitsandbytes"},
    {"quant_map", "bitsandbytes"},
    {"SCB", "bitsandbytes"},
};

std::string_view scheme_of(const Tensor& tensor) {
  if (tensor.dtype_name.starts_with("F8_")) return "FP8";
  const std::string_view name = tensor.name;
  const std::string_view last = name.substr(name.rfind('.') + 1);  // npos + 1 = 0
  for (const auto& mark : marks) {
    if (last == mark.part && last != name) return mark.scheme;
  }
  if (name.find(".quant_state.bitsandbytes") != name.npos) return "bitsandbytes";
  return {};
}

}  // namespace

void refuse_quantised(const Tensor& tensor) {
  const auto scheme = scheme_of(tensor);
  if (scheme.empty()) return;
  fail(ErrorKind::bad_data,
       "{}: tensor `{}` ({}): quantised weights ({}) are not supported: expected F32, F16 or BF16",
       tensor.file->string(), tensor.name, tensor.dtype_name, scheme);
}

}  // namespace gqa
