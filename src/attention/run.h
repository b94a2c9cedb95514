// Carrying out a plan.
#pragma once

#include <span>

#include "attention/plan.h"
#include "kernels/context.h"

namespace gqa {

/// A checked batch.
struct Job {
  std::span<const AttendItem> batch;
  std::span<const ItemShape> shapes;
  const AttendOptions& options;
};

/// Computes all units, over the context's threads, and merges partial results.
void run(Context::Impl& context, const Job& job, std::span<const Unit> units,
         std::span<const MergeJob> merges, const PlanSize& size);

}  // namespace gqa
