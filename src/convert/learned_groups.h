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

/// A layer of the source on the text.
struct StudiedLayer {
  int64_t layer;
  const LayerStudy& study;
  const RowsRef& hidden;  ///< [tokens, width]: what its attention's output is added to
};

/// Learns how to group a layer (see learn_groups()), and holds what is learned against `others` of
/// as many groups, the simplest first: each is merged in closed form and refined as the options
/// say, and takes the place of the best one before it where its errors on windows held out are
/// clearly_less(). What is learned comes last.
LayerGrouping learned_grouping(CalibrationRun& run, const StudiedLayer& studied,
                               const std::vector<FoundGroups>& others, bool equal,
                               const std::function<void()>& interrupt);

/// Whether so many heads make so many groups in more than one way, so that there is something to
/// learn.
constexpr bool has_choice(int64_t heads, int64_t groups) { return groups > 1 && groups < heads; }

/// Gradient steps of learning, from each start.
int learning_steps(const Calibration& calibration);

/// Whether these errors, of the same windows, are less by more than chance would have it: by more
/// than twice the standard error of the mean difference. Of one window: whether it is less.
bool clearly_less(const std::vector<double>& errors, const std::vector<double>& than);

}  // namespace gqa
