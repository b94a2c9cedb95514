// What `bench` prints.
#pragma once

#include <string>
#include <string_view>

#include "cli/args.h"
#include "cli/machine.h"
#include "gqa/bench.h"

namespace gqa::cli {

/// Prints text or JSON, and notes what makes the figures doubtful: threads that did not have a core
/// each, caches that fit the last level (rotate_bytes: what they should have exceeded).
void report_attention(const Common& common, std::string_view kind, const AttentionBench& bench,
                      int64_t rotate_bytes, const AttentionBenchResult& result,
                      const Context& context, const Machine& machine);

/// The same of two configurations in turns.
void report_beside(const Common& common, std::string_view kind, const AttentionBench& bench,
                   const AttentionBench& other, int64_t rotate_bytes,
                   const BesideBenchResult& result, const Context& context, const Machine& machine);

/// The same of attention's backward.
void report_backward(const Common& common, const BackwardBench& bench,
                     const BackwardBenchResult& result, const Context& context,
                     const Machine& machine);

/// The same of a model in folder `model`.
void report_model(const Common& common, const std::string& model, WeightDType weight_dtype,
                  const ModelBench& bench, const ModelBenchResult& result, const Context& context,
                  const Machine& machine);

}  // namespace gqa::cli
