// The output projection that comes closest to a wanted output.
#pragma once

#include "regroup/block_attention.h"
#include "regroup/scratch_matrix.h"

namespace gqa {

/// Heads with outputs fitted, and how much of the output is not as wanted: squared error relative
/// to the wanted output's square.
struct OutputFit {
  Heads heads;
  double before = 0;
  double after = 0;
};

/// Ridge regression of `target` [tokens, width] on what all heads attend to, towards the outputs as
/// they are, which are kept where nothing else comes closer. No bit depends on the number of
/// threads.
OutputFit refit_outputs(Context::Impl& context, const BlockShape& shape, const RowsRef& inputs,
                        const RowsRef& target, Heads heads, const ScratchPlace& place = {});

}  // namespace gqa
