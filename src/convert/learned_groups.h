// Groupings of a layer held against each other by what fitting makes of them.
#pragma once

#include <functional>

#include "convert/calibration_run.h"
#include "regroup/layer_study.h"

namespace gqa {

/// Groups of a layer, by the name of who found them.
struct FoundGroups {
  std::string name;
  HeadGroups groups;
};

/// Learns how to group a layer (see learn_groups()), beginning with the first of `others`, and
/// holds what is learned against them: each is merged in closed form and fitted for some steps, as
/// the options have steps, and the least error on windows held out wins; the earlier one of equal
/// ones, and `learned` last.
LayerGrouping learned_grouping(CalibrationRun& run, const LayerStudy& study, int64_t layer,
                               const std::vector<FoundGroups>& others, bool equal,
                               const std::function<void()>& interrupt);

}  // namespace gqa
