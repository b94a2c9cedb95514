// What a conversion is to write: from a source to a job.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "convert/output_tensor.h"
#include "convert/source.h"
#include "gqa/convert.h"
#include "io/json.h"

namespace gqa {

class Calibrator;

/// Everything that is known before the first byte is written.
struct ExportJob {
  std::string verb;  ///< "convert" or "expand"
  SourceModel source;
  ConvertPlan plan;
  ConvertOptions options;  ///< of expand: the output's alone
  std::vector<OutputTensor> tensors;
  std::vector<OutputTensor> key_directions = {};  ///< in a file of their own; may be none
  std::shared_ptr<Calibrator> calibrator = {};    ///< that makes tensors; null where none does
};

/// What becomes of the source's tensors; those that it does not name are copied.
using Rewrites = std::map<const Tensor*, OutputTensor>;

/// Opens the source and starts its plan. Throws Error (usage) for output options out of range.
ExportJob open_job(std::string verb, const std::filesystem::path& source,
                   const ConvertOptions& options);
/// Completes the job and its plan; `sizes`: of the result, per layer, the query heads of each KV
/// head.
void finish_job(ExportJob& job, Rewrites rewrites, const std::vector<std::vector<int64_t>>& sizes);

}  // namespace gqa
