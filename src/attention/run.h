// Carrying out a plan.
#pragma once

#include <span>

#include "attention/plan.h"
#include "gqa/attention.h"
#include "kernels/context.h"

namespace gqa {

/// A validated batch.
struct Job {
  std::span<const AttendItem> batch;
  std::span<const ItemShape> shapes;
  Mask mask;
  std::optional<float> scale;
};

/// Computes all units, over the context's threads, and merges partial results.
void run(Context::Impl& context, const Job& job, std::span<const Unit> units,
         std::span<const MergeJob> merges, const PlanSize& size);

}  // namespace gqa
