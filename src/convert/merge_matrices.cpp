// Merges that need heads as matrices: they change queries and outputs, too.
#include "convert/merge_matrices.h"

#include <algorithm>
#include <utility>

namespace gqa {
namespace {

/// Weights [rows, width] out of a matrix with the bias behind them, which gives its memory back.
std::vector<double> take_weights(Matrix& matrix, int64_t width, std::vector<double>* bias) {
  std::vector<double> weights(static_cast<size_t>(matrix.rows() * width));
  Eigen::Map<Matrix>(weights.data(), matrix.rows(), width) = matrix.leftCols(width);
  if (bias != nullptr) {
    bias->resize(static_cast<size_t>(matrix.rows()));
    Eigen::Map<Vector>(bias->data(), matrix.rows()) = matrix.col(width);
  }
  matrix.resize(0, 0);
  return weights;
}

void put_weights(Matrix& matrix, const std::vector<double>& weights,
                 const std::vector<double>& bias) {
  const int64_t width = std::ssize(weights) / matrix.rows();
  matrix.leftCols(width) = Eigen::Map<const Matrix>(weights.data(), matrix.rows(), width);
  if (!bias.empty()) matrix.col(width) = Eigen::Map<const Vector>(bias.data(), matrix.rows());
}

Heads merge_by_grams(const MergeInput& in, HeadMerge how) {
  const Heads heads = load_heads(in.config, in.layer, in.tensors);
  const HeadGrams grams = make_grams(heads, assumed_variance(in.norm, in.config.attention_bias));
  return merge_heads(heads, grams, in.groups, how, in.planes);
}

}  // namespace

int64_t merge_matrices_bytes(const ModelConfig& config, int64_t layer, int64_t groups) {
  const int64_t kv_heads = config.kv_heads[static_cast<size_t>(layer)];
  const int64_t head = config.head_dim * config.width;
  // The source's heads and the result's, and inner products of values. While these are made, a
  // product as large as the queries lies beside the source's heads alone.
  const int64_t source = (2 * config.q_heads + 2 * kv_heads) * head;
  const int64_t result = (2 * config.q_heads + 2 * groups) * head;
  const int64_t grams = kv_heads * config.head_dim * kv_heads * config.head_dim;
  const int64_t product = std::max(config.q_heads, kv_heads) * head;
  return static_cast<int64_t>(sizeof(double)) * (source + std::max(result, product) + grams);
}

MergedLayer merged_layer(Heads heads, const ModelConfig& config) {
  const int64_t width = config.width;
  const bool biased = config.attention_bias;
  MergedLayer merged;
  merged.q = take_weights(heads.q, width, biased ? &merged.q_bias : nullptr);
  merged.k = take_weights(heads.k, width, biased ? &merged.k_bias : nullptr);
  merged.v = take_weights(heads.v, width, biased ? &merged.v_bias : nullptr);
  merged.o = take_weights(heads.o, heads.o.cols(), nullptr);
  return merged;
}

Heads heads_of(const MergedLayer& merged, const Heads& source, const HeadGroups& groups,
               const std::vector<int64_t>& planes) {
  Heads heads;
  heads.head_dim = planes.empty() ? source.head_dim : 2 * std::ssize(planes);
  heads.planes = planes;
  heads.q_begin.push_back(0);
  for (const auto& group : groups) {
    heads.q_begin.push_back(heads.q_begin.back() + std::ssize(query_heads_of(source, group)));
  }
  const int64_t q_rows = heads.q_heads() * heads.head_dim;
  const int64_t kv_rows = heads.kv_heads() * heads.head_dim;
  heads.q.resize(q_rows, source.inputs());
  heads.k.resize(kv_rows, source.inputs());
  heads.v.resize(kv_rows, source.inputs());
  heads.o.resize(source.o.rows(), q_rows);
  put_weights(heads.q, merged.q, merged.q_bias);
  put_weights(heads.o, merged.o, {});
  return with_merged(std::move(heads), merged);
}

Heads with_merged(Heads heads, const MergedLayer& merged) {
  put_weights(heads.k, merged.k, merged.k_bias);
  put_weights(heads.v, merged.v, merged.v_bias);
  return heads;
}

MergedLayer merge_aligned(const MergeInput& in) {
  return merged_layer(merge_by_grams(in, HeadMerge::aligned), in.config);
}

MergedLayer merge_principal(const MergeInput& in) {
  return merged_layer(merge_by_grams(in, HeadMerge::principal), in.config);
}

}  // namespace gqa
