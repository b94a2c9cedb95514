// Approximations of attention, timed beside exact attention.
#pragma once

#include "gqa/bench.h"

namespace gqa::bench {

/// bench_attention() where attention is not exact; b has been checked.
AttentionBenchResult bench_approximation(Context& context, const AttentionBench& b,
                                         const BenchOptions& options, const Progress& progress);

}  // namespace gqa::bench
