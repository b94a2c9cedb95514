// What tune() tries.
#pragma once

#include <vector>

#include "gqa/config.h"
#include "gqa/convert.h"
#include "gqa/tune.h"

namespace gqa {

struct Candidate {
  std::string name;  ///< also of its folder
  ConvertOptions options;
};

/// In the order in which they are measured. `calibration_text`: a file that holds the part of the
/// text to calibrate with. Throws Error (usage) for what does not fit the model.
std::vector<Candidate> make_candidates(const ModelConfig& config, const TuneOptions& options,
                                       const std::filesystem::path& calibration_text);

}  // namespace gqa
