#include "convert/learned_groups.h"

#include <algorithm>

#include "regroup/learn_groups.h"
#include "regroup/refine_block.h"
#include "regroup/refit_outputs.h"

namespace gqa {
namespace {

/// Of learning, from each start, and of each trial, where the options do not ask for fewer. As many
/// tell which groups are best in the end; 60 do not (docs/conversion.md).
constexpr int most_steps = 200;

double trial_error(CalibrationRun& run, const LayerStudy& study, int64_t layer,
                   const HeadGroups& groups, const std::function<void()>& interrupt) {
  Context::Impl& context = run.context.impl();
  Heads heads = closed_form(study, groups);
  const BlockShape shape(run.config, run.text, heads);
  const BlockGoal goal{.inputs = study.inputs, .target = study.output, .place = run.place};
  const int steps = std::min(most_steps, run.calibration.steps);
  if (steps > 0) heads = refit_outputs(context, shape, goal, heads).heads;
  return refine_block(context, shape, goal, heads,
                      {.steps = steps, .seed = run.options.seed, .layer = layer}, interrupt)
      .after;
}

}  // namespace

LayerGrouping learned_grouping(CalibrationRun& run, const LayerStudy& study, int64_t layer,
                               const std::vector<FoundGroups>& others, bool equal,
                               const std::function<void()>& interrupt) {
  const BlockShape shape(run.config, run.text, study.heads);
  std::vector<FoundGroups> found = others;
  const int refined = run.calibration.steps;
  const LearnOptions options{.groups = std::ssize(others.at(0).groups),
                             .equal = equal,
                             .steps = refined == 0 ? most_steps : std::min(most_steps, refined),
                             .seed = run.options.seed,
                             .layer = layer};
  found.push_back({"learned", learn_groups(run.context.impl(), shape, study, options, interrupt)});
  LayerGrouping result{.layer = layer};
  double least = 0;
  for (const FoundGroups& one : found) {
    const auto same = std::ranges::find(result.tried, one.groups, &GroupingTrial::groups);
    const double error = same != result.tried.end()
                             ? same->error
                             : trial_error(run, study, layer, one.groups, interrupt);
    result.tried.push_back({one.name, one.groups, error});
    if (!result.chosen.empty() && !(error < least)) continue;
    result.chosen = one.name;
    least = error;
  }
  return result;
}

}  // namespace gqa
