#include "tune/candidates.h"

#include <algorithm>
#include <numeric>

#include "convert/budget_groups.h"
#include "convert/merge.h"
#include "core/fail.h"

namespace gqa {
namespace {

/// Fewer than the model has, most first.
std::vector<int64_t> all_kv_heads(const ModelConfig& config) {
  int64_t common = 0;
  for (const int64_t heads : config.kv_heads) common = std::gcd(common, heads);
  std::vector<int64_t> divisors;
  for (int64_t n = common - 1; n >= 1; --n) {
    if (common % n == 0) divisors.push_back(n);
  }
  return divisors;
}

std::vector<double> all_budgets(const ModelConfig& config) {
  const auto heads = std::accumulate(config.kv_heads.begin(), config.kv_heads.end(), int64_t{0});
  std::vector<double> budgets;
  for (const double budget : {0.75, 0.5, 0.375, 0.25}) {
    // One head a layer is what all_kv_heads() has, and less can't be.
    const bool has_choice =
        budget * static_cast<double>(heads) > static_cast<double>(config.n_layers);
    if (has_choice) budgets.push_back(budget);
  }
  return budgets;
}

ConvertOptions common_options(const TuneOptions& options, const std::filesystem::path& text) {
  ConvertOptions common;
  common.seed = options.seed;
  common.output.threads = options.threads;
  common.output.force = true;  // what a stopped run has left
  Calibration calibration{.text = text, .tokens = options.calibration_tokens};
  calibration.steps = options.steps;
  calibration.isa = options.isa;
  calibration.scratch = text.parent_path();
  // Closed forms take averages, for which little text will do; fits do not.
  if (options.steps == 0) calibration.sampled_tokens = 0;
  common.calibration = calibration;
  return common;
}

}  // namespace

std::vector<Candidate> make_candidates(const ModelConfig& config, const TuneOptions& options,
                                       const std::filesystem::path& calibration_text) {
  const bool all = options.kv_heads.empty() && options.budgets.empty();
  const auto kv_heads = all ? all_kv_heads(config) : options.kv_heads;
  const auto budgets = all ? all_budgets(config) : options.budgets;
  require(!options.groupings.empty() && !options.merges.empty(),
          "nothing to try: groupings and merges are lists of at least one");
  std::vector<Candidate> candidates;
  const auto add = [&](const std::string& heads, ConvertOptions one) {
    for (const std::string& grouping : options.groupings) {
      for (const std::string& merge : options.merges) {
        find_grouping(grouping);
        find_merge(merge);
        one.grouping = grouping;
        one.merge = merge;
        const std::string name = fmt::format("{}-{}-{}", heads, grouping, merge);
        const bool twice =
            std::ranges::find(candidates, name, &Candidate::name) != candidates.end();
        if (!twice) candidates.push_back({name, one});
      }
    }
  };
  const ConvertOptions common = common_options(options, calibration_text);
  for (const int64_t heads : kv_heads) {
    check_kv_heads(config, heads);
    ConvertOptions one = common;
    one.kv_heads = heads;
    add(fmt::format("kv{}", heads), one);
  }
  for (const double budget : budgets) {
    ConvertOptions one = common;
    one.budget = budget;
    check_budget(one);
    heads_of_budget(config, budget);
    add(fmt::format("budget{}", budget), one);
  }
  return candidates;
}

}  // namespace gqa
