// The output projection that comes closest to a wanted output.
#pragma once

#include "regroup/windowed_block.h"

namespace gqa {

/// Heads with outputs fitted, and how much of the output is not as wanted: squared error relative
/// to the wanted output's square, tokens weighed, on windows held out (on all of them where there
/// are too few).
struct OutputFit {
  Heads heads;
  double before = 0;
  double after = 0;
};

/// Ridge regression of the goal's target on what all heads attend to, towards the outputs as they
/// are, which are kept where nothing else comes closer. Held-out windows take no part, or what is
/// learned of them by heart would hide what refining gains: a wide model has many outputs. No bit
/// depends on the number of threads.
OutputFit refit_outputs(Context::Impl& context, const BlockShape& shape, const BlockGoal& goal,
                        Heads heads);

}  // namespace gqa
