#include "convert/head_grouping.h"

#include <functional>

#include "convert/learned_groups.h"
#include "core/fail.h"
#include "regroup/clusters.h"
#include "regroup/head_prices.h"
#include "regroup/head_similarity.h"
#include "regroup/key_driven.h"
#include "regroup/partition.h"

namespace gqa {
namespace {

/// Under the moments of the text, or those that are assumed without one.
HeadGrams grams_of(const GroupingInput& in) {
  if (in.grams != nullptr) return *in.grams;
  if (in.weights.calibrator != nullptr) return in.weights.calibrator->study(in.layer).grams;
  return load_grams(in.config, *in.weights.checkpoint, in.layer);
}

HeadGroups cheapest_groups(const GroupingInput& in) {
  const int64_t heads = in.config.kv_heads[static_cast<size_t>(in.layer)];
  const PartitionOptions options{
      .heads = heads, .groups = in.kv_heads, .equal = !in.unequal, .seed = in.seed};
  if (heads > most_priced_heads) {
    const HeadGrams grams = grams_of(in);
    ThreadPool pool(in.threads == 0 ? default_threads() : in.threads);
    return cheapest_partition(options, PairPrices(grams, pool));
  }
  if (in.weights.calibrator == nullptr) {
    const HeadGrams grams = grams_of(in);
    return cheapest_partition(options, HeadPrices(grams));
  }
  const LayerStudy& study = in.weights.calibrator->study(in.layer);
  const StudyPrices prices(study);
  return cheapest_partition(options, std::cref(prices));
}

}  // namespace

HeadGroups group_similar(const GroupingInput& in) {
  HeadGroups cheapest = cheapest_groups(in);
  const int64_t heads = in.config.kv_heads[static_cast<size_t>(in.layer)];
  Calibrator* calibrator = in.weights.calibrator;
  if (in.unequal || calibrator == nullptr || heads > most_priced_heads) return cheapest;
  HeadGroups neighbours = group_neighbours(in);
  if (cheapest == neighbours) return cheapest;
  return calibrator->best_groups(calibrator->study(in.layer), {cheapest, neighbours});
}

HeadGroups group_learned(const GroupingInput& in) {
  Calibrator* calibrator = in.weights.calibrator;
  require(calibrator != nullptr,
          "grouping `learned` learns from text: give one to calibrate on (--calibrate TEXT, or "
          "self)");
  const int64_t heads = in.config.kv_heads[static_cast<size_t>(in.layer)];
  if (!has_choice(heads, in.kv_heads)) return group_neighbours(in);
  std::vector<FoundGroups> others;
  if (!in.unequal) others.push_back({"neighbour", group_neighbours(in)});
  others.push_back({"price", cheapest_groups(in)});
  return calibrator->learn_groups(in.layer, others, !in.unequal, in.interrupt);
}

HeadGroups group_clusters(const GroupingInput& in) {
  return cluster_heads(
      aligned_similarity(grams_of(in)).joint,
      {.groups = in.kv_heads, .equal = !in.unequal, .seed = in.seed, .layer = in.layer});
}

HeadGroups group_by_importance(const GroupingInput& in) {
  return key_driven_groups(grams_of(in), in.kv_heads);
}

}  // namespace gqa
