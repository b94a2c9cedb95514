// Carrying out the backward's plan.
#pragma once

#include <span>

#include "attention/backward_plan.h"
#include "kernels/context.h"

namespace gqa {

/// Computes all gradients, over the context's threads.
void run_backward(Context::Impl& context, const BackwardJob& job,
                  std::span<const BackwardHead> heads, std::span<const BackwardUnit> units,
                  const BackwardSize& size, std::span<float> dsinks);

}  // namespace gqa
