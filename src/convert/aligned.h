// How alike a layer's KV heads are, whatever their bases, and which should share.
#pragma once

#include <functional>

#include "gqa/inspect.h"
#include "io/checkpoint.h"

namespace gqa {

/// Throws Error (bad_data) where an element is not finite. `interrupt` is called now and then, and
/// may throw.
HeadSimilarity study_similarity(const ModelConfig& config, const Checkpoint& checkpoint,
                                int64_t layer, const std::function<void()>& interrupt);

}  // namespace gqa
