// Where a conversion on text is, told layer by layer and step by step.
#pragma once

#include <functional>
#include <vector>

#include "convert/calibration_run.h"

namespace gqa {

/// Whether converting changes a layer, so that it is refined where there are steps.
bool is_changed(const CalibrationRun& run, int64_t layer, const HeadGroups& groups);

/// To be called when a layer is begun, and before each of its steps. All steps of all layers are
/// the whole; layers that stop early jump.
std::function<void()> layer_progress(const CalibrationRun& run,
                                     const std::vector<HeadGroups>& groups, int64_t layer,
                                     const Progress& progress);

}  // namespace gqa
