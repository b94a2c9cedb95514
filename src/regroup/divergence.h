// How far a model's predictions are from another's.
#pragma once

#include <cstdint>
#include <span>

#include "gqa/config.h"
#include "gqa/context.h"
#include "model/weights.h"
#include "regroup/matrix.h"

namespace gqa {

/// Rows [begin, end).
struct RowRange {
  int64_t begin, end;
};

/// Bytes that divergence() takes.
int64_t divergence_memory(const ModelConfig& config);

/// Mean KL(original || other), nats per token, over these rows, of models with these hidden states
/// behind their last layers, [tokens, width], and this final norm and head. Never holds logits of
/// more than a few rows. No bit depends on the number of threads.
double divergence(Context& context, const ModelConfig& config, const Weights& weights,
                  const RowsRef& original, const RowsRef& other, std::span<const RowRange> rows);

}  // namespace gqa
