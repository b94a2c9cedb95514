#include "convert/budget_groups.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "convert/budget.h"
#include "core/fail.h"
#include "regroup/head_prices.h"

namespace gqa {
namespace {

/// What a layer could become.
struct LayerChoices {
  std::vector<HeadGroups> groups;  ///< fewest first
  std::vector<HeadsOption> losses;
};

class BudgetSearch {
 public:
  BudgetSearch(const ModelConfig& config, const ConvertOptions& options,
               const WeightsToGroup& weights, const Progress& progress)
      : config_(config),
        options_(options),
        weights_(weights),
        progress_(progress),
        method_(find_grouping(options.grouping)) {
    for (const int64_t heads : config.kv_heads) {
      for (int64_t n = 1; n < heads; ++n) total_ += heads % n == 0;
    }
    total_ += weights.calibrator != nullptr ? most_candidates : 0;
  }

  std::vector<HeadGroups> run(int64_t budget) {
    for (int64_t l = 0; l < config_.n_layers; ++l) {
      layers_.push_back(study(l));
      losses_.push_back(layers_.back().losses);
    }
    std::vector<int64_t> best;
    double least = 0;
    for (const auto& heads : candidates(budget)) {
      const double loss = loss_of(heads);
      if (!best.empty() && !(loss < least)) continue;
      best = heads;
      least = loss;
    }
    tell(total_);
    return groups_of(best);
  }

 private:
  static constexpr int64_t most_candidates = 4;

  void tell(int64_t done) const {
    if (progress_) progress_("budget", done, total_);
  }

  LayerChoices study(int64_t layer) {
    const int64_t heads = config_.kv_heads[static_cast<size_t>(layer)];
    std::optional<HeadGrams> grams;
    if (weights_.calibrator == nullptr) {
      grams = load_grams(config_, *weights_.checkpoint, layer);
    }
    LayerChoices result;
    for (int64_t n = 1; n <= heads; ++n) {
      if (heads % n != 0) continue;
      tell(done_);
      result.groups.push_back(
          method_.group({config_, weights_, layer, n, false, options_.seed, options_.output.threads,
                         grams ? &*grams : nullptr, [this] { tell(done_); }}));
      result.losses.push_back({n, 0});  // all heads: nothing is lost
    }
    measure(layer, grams ? &*grams : nullptr, result);
    done_ += std::ssize(result.groups) - 1;
    return result;
  }

  void measure(int64_t layer, const HeadGrams* grams, LayerChoices& choices) const {
    const std::span fewer(choices.groups.data(), choices.groups.size() - 1);
    if (grams == nullptr) {
      const std::vector<double> losses =
          weights_.calibrator->divergences(layer, fewer, [this] { tell(done_); });
      for (size_t i = 0; i < fewer.size(); ++i) choices.losses[i].loss = losses[i];
      return;
    }
    const HeadPrices price(*grams);
    for (size_t i = 0; i < fewer.size(); ++i) {
      for (const auto& group : fewer[i]) {
        if (group.size() > 1) choices.losses[i].loss += price(group);
      }
    }
  }

  /// As many heads in every layer first, where there is such a number.
  std::vector<std::vector<int64_t>> candidates(int64_t budget) const {
    std::vector<std::vector<int64_t>> found;
    const auto add = [&](const std::vector<int64_t>& heads) {
      if (!heads.empty() && std::ranges::find(found, heads) == found.end()) found.push_back(heads);
    };
    add(uniform_heads(losses_, budget));
    add(cheapest_heads(losses_, budget));
    if (weights_.calibrator == nullptr) return found;
    // Losses need not add up: errors of layers may point the same way (then their roots do), or a
    // layer's great loss may cost the others all the more.
    for (const double power : {0.5, 2.0}) {
      HeadsOptions bent = losses_;
      for (auto& layer : bent) {
        for (HeadsOption& option : layer) option.loss = std::pow(std::max(option.loss, 0.0), power);
      }
      add(cheapest_heads(bent, budget));
    }
    return found;
  }

  double loss_of(const std::vector<int64_t>& heads) {
    if (weights_.calibrator == nullptr) return total_loss(losses_, heads);
    const double loss = weights_.calibrator->divergence(groups_of(heads), [this] { tell(done_); });
    ++done_;
    return loss;
  }

  std::vector<HeadGroups> groups_of(const std::vector<int64_t>& heads) const {
    std::vector<HeadGroups> groups;
    for (size_t l = 0; l < layers_.size(); ++l) {
      const auto option = std::ranges::find(losses_[l], heads[l], &HeadsOption::kv_heads);
      groups.push_back(layers_[l].groups[static_cast<size_t>(option - losses_[l].begin())]);
    }
    return groups;
  }

  const ModelConfig& config_;
  const ConvertOptions& options_;
  const WeightsToGroup& weights_;
  const Progress& progress_;
  const GroupingMethod& method_;
  std::vector<LayerChoices> layers_;
  HeadsOptions losses_;
  int64_t done_ = 0;
  int64_t total_ = 0;
};

}  // namespace

void check_budget(const ConvertOptions& options) {
  const double budget = *options.budget;
  require(budget > 0 && budget <= 1, "budget: expected above 0 and at most 1, got {}", budget);
  require(options.kv_heads == 0, "a budget and a number of KV heads ({}) exclude each other",
          options.kv_heads);
  require(!options.unequal, "a budget makes equal groups: unequal ones have to be given");
  require(find_grouping(options.grouping).sizes != GroupSizes::unequal,
          "a budget makes equal groups: grouping `{}` makes none", options.grouping);
}

int64_t heads_of_budget(const ModelConfig& config, double budget) {
  const auto all = std::accumulate(config.kv_heads.begin(), config.kv_heads.end(), int64_t{0});
  // 0.7 * 10 is to be 7, whatever binary fractions make of it.
  const auto heads = static_cast<int64_t>(std::floor(budget * static_cast<double>(all) + 1e-9));
  require(heads >= config.n_layers,
          "budget {} is {} of {} KV heads, but each of {} layers keeps at least one: expected at "
          "least {}",
          budget, heads, all, config.n_layers,
          static_cast<double>(config.n_layers) / static_cast<double>(all));
  return heads;
}

std::vector<HeadGroups> budget_groups(const ModelConfig& config, const ConvertOptions& options,
                                      const WeightsToGroup& weights, const Progress& progress) {
  check_budget(options);
  const int64_t heads = heads_of_budget(config, *options.budget);
  if (!options.explicit_groups.empty()) {
    check_groups(options.explicit_groups, "explicit_groups", config, options, ErrorKind::usage);
    return options.explicit_groups;
  }
  return BudgetSearch(config, options, weights, progress).run(heads);
}

}  // namespace gqa
