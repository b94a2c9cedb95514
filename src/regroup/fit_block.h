// Fitting one layer's attention to an output that is wanted of it.
#pragma once

#include <functional>

#include "regroup/block_attention.h"

namespace gqa {

struct FitOptions {
  int steps = 4;               ///< Gauss-Newton steps; 0: the output projection alone
  int solver_steps = 8;        ///< conjugate gradient steps within each
  double damping = 1e-2;       ///< of the first step, relative to the curvature's estimate
  double output_ridge = 1e-5;  ///< pull of the output projection towards where it starts
  uint64_t seed = 0;
};

struct FitResult {
  Heads heads;
  double before = 0;  ///< squared error of the output, relative to the wanted output's square
  double after = 0;
};

/// Brings the output of `heads` on these inputs close to `target` [tokens, width], in least
/// squares: first the output projection of all heads at once, by ridge regression; then q, k, v and
/// o together by Gauss-Newton steps with Levenberg's damping. Each step is solved for by conjugate
/// gradients, preconditioned by Kronecker factors per head (as Martens and Grosse 2015 have them
/// per layer): moments of inputs times moments of gradients by the head's projections. The error
/// never grows. None of it depends on the basis in which a head is written. No bit depends on the
/// number of threads. `interrupt` is called at every step, and may throw.
FitResult fit_block(Context::Impl& context, const BlockShape& shape, const Rows& inputs,
                    const Rows& target, const Heads& heads, const FitOptions& options,
                    const std::function<void()>& interrupt = {});

}  // namespace gqa
