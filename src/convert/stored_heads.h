// Heads as a file holds them.
#pragma once

#include <optional>

#include "gqa/dtype.h"
#include "regroup/heads.h"

namespace gqa {

/// Rounded to `dtype`; none: each projection, and each bias, to the type of the source's.
Heads as_stored(Heads heads, const AttentionTensors& source, std::optional<DType> dtype);

}  // namespace gqa
