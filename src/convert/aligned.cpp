#include "convert/aligned.h"

#include "regroup/clusters.h"
#include "regroup/head_prices.h"
#include "regroup/head_similarity.h"
#include "regroup/partition.h"

namespace gqa {
namespace {

std::vector<double> elements(const Matrix& matrix) {
  return {matrix.data(), matrix.data() + matrix.size()};
}

/// Over pairs of heads that share a group.
double mean_inside(const HeadGroups& groups, const Matrix& similarity) {
  double sum = 0;
  int64_t pairs = 0;
  for (const auto& group : groups) {
    for (size_t i = 0; i < group.size(); ++i) {
      for (size_t j = 0; j < i; ++j, ++pairs) sum += similarity(group[i], group[j]);
    }
  }
  return sum / static_cast<double>(pairs);
}

}  // namespace

HeadSimilarity study_similarity(const ModelConfig& config, const Checkpoint& checkpoint,
                                int64_t layer, const std::function<void()>& interrupt) {
  const HeadGrams grams = load_grams(config, checkpoint, layer);
  interrupt();
  const AlignedSimilarity alike = aligned_similarity(grams);
  interrupt();
  HeadSimilarity result{.kv_heads = grams.kv_heads(),
                        .keys = elements(alike.keys),
                        .values = elements(alike.values),
                        .joint = elements(alike.joint),
                        .suggested = {}};
  const HeadPrices prices(grams);
  for (int64_t n = 1; n <= result.kv_heads / 2; ++n) {
    if (result.kv_heads % n != 0) continue;
    const HeadGroups groups = result.kv_heads <= most_priced_heads
                                  ? cheapest_partition({.heads = result.kv_heads, .groups = n},
                                                       std::cref(prices), interrupt)
                                  : cluster_heads(alike.joint, {.groups = n, .layer = layer});
    result.suggested.push_back({groups, mean_inside(groups, alike.joint)});
  }
  return result;
}

}  // namespace gqa
