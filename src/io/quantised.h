// Knowing quantised weights by their tensors.
#pragma once

#include "io/checkpoint.h"

namespace gqa {

/// Throws Error (bad_data, naming file, tensor and scheme) where the tensor belongs to a quantised
/// checkpoint.
void refuse_quantised(const Tensor& tensor);

}  // namespace gqa
