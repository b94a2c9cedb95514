#include "convert/layer_progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace gqa {

bool is_changed(const CalibrationRun& run, int64_t layer, const HeadGroups& groups) {
  return std::ssize(groups) < run.config.kv_heads[static_cast<size_t>(layer)] ||
         !run.planes.empty();
}

std::function<void()> layer_progress(const CalibrationRun& run,
                                     const std::vector<HeadGroups>& groups, int64_t layer,
                                     const Progress& progress) {
  if (!progress) return [] {};
  const int64_t layers = run.config.n_layers;
  const std::string where = fmt::format("layer {} ({} of {})", layer, layer + 1, layers);
  const int64_t steps = run.calibration.steps;
  if (steps == 0) {
    return [=, &progress] { progress("merge: " + where, layer, layers); };
  }
  int64_t before = 0, total = 0;
  for (int64_t l = 0; l < layers; ++l) {
    if (!is_changed(run, l, groups[static_cast<size_t>(l)])) continue;
    total += steps;
    if (l < layer) before += steps;
  }
  return [=, &progress, step = int64_t{0}]() mutable {
    const std::string at = step == 0 ? "" : fmt::format(", step {} of {}", step, steps);
    progress(fmt::format("refine: {}{}", where, at), before + std::max<int64_t>(step - 1, 0),
             total);
    step = std::min(step + 1, steps);  // a layer that begins again with less stays at its end
  };
}

}  // namespace gqa
