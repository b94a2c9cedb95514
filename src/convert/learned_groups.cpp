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
#include "regroup/windows.h"

namespace gqa {
namespace {

/// Of learning, from each start, and of each trial, where the options do not ask for fewer. As many
/// tell which groups are best in the end; 60 do not (docs/conversion.md).
constexpr int most_steps = 200;

/// What fitting makes of the groups: errors on windows held out, one by one.
std::vector<double> trial_errors(CalibrationRun& run, const LayerStudy& study, int64_t layer,
                                 const HeadGroups& groups, const std::function<void()>& interrupt) {
  Context::Impl& context = run.context.impl();
  Heads heads = closed_form(study, groups);
  const BlockShape shape(run.config, run.text, heads);
  const BlockGoal goal{.inputs = study.inputs, .target = study.output, .place = run.place};
  const int steps = std::min(most_steps, run.calibration.steps);
  if (steps > 0) heads = refit_outputs(context, shape, goal, heads).heads;
  heads = refine_block(context, shape, goal, heads,
                       {.steps = steps, .seed = run.options.seed, .layer = layer}, interrupt)
              .heads;
  WindowedBlock block(context, shape, goal, 1);
  const BlockWeights weights = block_weights(heads);
  std::vector<double> errors;
  for (const int64_t window : WindowSplit(shape.windows()).checked) {
    errors.push_back(block.error(weights, std::span(&window, 1)));
  }
  return errors;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

bool clearly_less(const std::vector<double>& errors, const std::vector<double>& than) {
  std::vector<double> gains;
  std::ranges::transform(than, errors, std::back_inserter(gains), std::minus());
  const double gain = mean(gains);
  double squares = 0;
  for (const double one : gains) squares += (one - gain) * (one - gain);
  const auto n = static_cast<double>(gains.size());
  return gain > (gains.size() > 1 ? 2 * std::sqrt(squares / (n * (n - 1))) : 0);
}

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
  std::vector<double> best;
  for (const FoundGroups& one : found) {
    const auto same = std::ranges::find(result.tried, one.groups, &GroupingTrial::groups);
    if (same != result.tried.end()) {
      result.tried.push_back({one.name, one.groups, same->error});
      continue;
    }
    std::vector<double> errors = trial_errors(run, study, layer, one.groups, interrupt);
    result.tried.push_back({one.name, one.groups, mean(errors)});
    if (!best.empty() && !clearly_less(errors, best)) continue;
    result.chosen = one.name;
    best = std::move(errors);
  }
  return result;
}

}  // namespace gqa
