#include "convert/learned_groups.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>
#include <utility>

#include "regroup/learn_groups.h"
#include "regroup/refine_block.h"
#include "regroup/refit_outputs.h"

namespace gqa {
namespace {

/// What refining makes of the groups: errors on windows held out, one by one. After fewer steps, or
/// short of the MLP, groups that merge well would win over those that are better in the end.
std::vector<double> trial_errors(CalibrationRun& run, const StudiedLayer& studied,
                                 const BlockGoal& goal, const HeadGroups& groups,
                                 const std::function<void()>& interrupt) {
  Context::Impl& context = run.context.impl();
  Heads heads = closed_form(studied.study, groups);
  const BlockShape shape(run.config, run.text, heads);
  const int steps = run.calibration.steps;
  if (steps > 0) heads = refit_outputs(context, shape, goal, heads).heads;
  return refine_block(context, shape, goal, heads,
                      {.steps = steps, .seed = run.options.seed, .layer = studied.layer}, interrupt)
      .each;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

int learning_steps(const Calibration& calibration) {
  const int most = LearnOptions().steps;
  return calibration.steps == 0 ? most : std::min(most, calibration.steps);
}

bool clearly_less(const std::vector<double>& errors, const std::vector<double>& than) {
  std::vector<double> gains;
  std::ranges::transform(than, errors, std::back_inserter(gains), std::minus());
  const double gain = mean(gains);
  double squares = 0;
  for (const double one : gains) squares += (one - gain) * (one - gain);
  const auto n = static_cast<double>(gains.size());
  return gain > (gains.size() > 1 ? 2 * std::sqrt(squares / (n * (n - 1))) : 0);
}

LayerGrouping learned_grouping(CalibrationRun& run, const StudiedLayer& studied,
                               const std::vector<FoundGroups>& others, bool equal,
                               const std::function<void()>& interrupt) {
  const LayerStudy& study = studied.study;
  const BlockShape shape(run.config, run.text, study.heads);
  std::vector<FoundGroups> found = others;
  const LearnOptions options{.groups = std::ssize(others.at(0).groups),
                             .equal = equal,
                             .steps = learning_steps(run.calibration),
                             .seed = run.options.seed,
                             .layer = studied.layer};
  found.push_back({"learned", learn_groups(run.context.impl(), shape, study, options, interrupt)});
  MlpBlock mlp = run.mlp_of(studied.layer);
  const BlockGoal goal = run.goal(study.inputs, study.output, studied.hidden, &mlp);
  LayerGrouping result{.layer = studied.layer};
  std::vector<double> best;
  for (const FoundGroups& one : found) {
    const auto same = std::ranges::find(result.tried, one.groups, &GroupingTrial::groups);
    if (same != result.tried.end()) {
      result.tried.push_back({one.name, one.groups, same->error});
      continue;
    }
    std::vector<double> errors = trial_errors(run, studied, goal, one.groups, interrupt);
    result.tried.push_back({one.name, one.groups, mean(errors)});
    if (!best.empty() && !clearly_less(errors, best)) continue;
    result.chosen = one.name;
    best = std::move(errors);
  }
  return result;
}

}  // namespace gqa
