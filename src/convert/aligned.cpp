#include "convert/aligned.h"

#include "regroup/clusters.h"
#include "regroup/head_similarity.h"
#include "regroup/merge_heads.h"
#include "regroup/partition.h"

namespace gqa {
namespace {

/// Layers of up to so many KV heads have all groups priced. The price of a group of m heads takes
/// the eigenvalues of a matrix of m * head_dim rows: with 8 heads of size 128 these are 98 matrices
/// of up to 512 rows, with 16 among others 12870 of 1024.
constexpr int64_t most_priced = 8;

HeadGrams grams_of(const ModelConfig& config, const Checkpoint& checkpoint, int64_t layer) {
  const AttentionTensors tensors = attention_tensors(checkpoint, layer);
  const Tensor& norm = attention_norm(checkpoint, layer);
  check_finite(norm);
  return make_grams(load_heads(config, layer, tensors),
                    assumed_variance(norm, tensors.q_bias != nullptr));
}

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
  const HeadGrams grams = grams_of(config, checkpoint, layer);
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
    const HeadGroups groups = result.kv_heads <= most_priced
                                  ? cheapest_partition({.heads = result.kv_heads, .groups = n},
                                                       std::cref(prices), interrupt)
                                  : cluster_heads(alike.joint, {.groups = n, .layer = layer});
    result.suggested.push_back({groups, mean_inside(groups, alike.joint)});
  }
  return result;
}

}  // namespace gqa
