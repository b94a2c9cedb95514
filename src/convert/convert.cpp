#include "gqa/convert.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "convert/export.h"
#include "convert/grouping.h"
#include "convert/merge.h"

namespace gqa {
namespace {

/// The query heads in their new order: those of a group's first KV head, of its second, and so on.
/// `sizes`: query heads of each KV head of the source.
std::vector<int64_t> query_order(const HeadGroups& groups, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> first(sizes.size());
  std::exclusive_scan(sizes.begin(), sizes.end(), first.begin(), int64_t{0});
  std::vector<int64_t> order;
  for (const auto& group : groups) {
    for (const int64_t kv_head : group) {
      for (int64_t i = 0; i < sizes[kv_head]; ++i) order.push_back(first[kv_head] + i);
    }
  }
  return order;
}

/// Query heads of each group.
std::vector<int64_t> merged_sizes(const HeadGroups& groups, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> merged;
  for (const auto& group : groups) {
    merged.push_back(0);
    for (const int64_t kv_head : group) merged.back() += sizes[kv_head];
  }
  return merged;
}

/// Merges a layer when the first of its new tensors is asked for, and keeps what was not asked for
/// yet.
class LazyMerge {
 public:
  LazyMerge(const ExportJob& job, int64_t layer, const AttentionTensors& a)
      : method_(&find_merge(job.options.merge)),
        config_(job.source.config),
        layer_(layer),
        groups_(job.plan.groups[layer]),
        seed_(job.options.seed),
        tensors_(a) {}

  std::vector<double> take(std::vector<double> MergedLayer::*part) {
    if ((merged_.*part).empty()) {
      for (const Tensor* t : {tensors_.k, tensors_.v, tensors_.k_bias, tensors_.v_bias}) {
        if (t != nullptr) check_finite(*t);
      }
      merged_ = method_->merge({config_, layer_, groups_, seed_, tensors_.k, tensors_.v,
                                tensors_.k_bias, tensors_.v_bias});
    }
    std::vector<double> values = std::exchange(merged_.*part, std::vector<double>());
    // K is written before V: what of it is left then is not wanted.
    if (part == &MergedLayer::v) {
      for (auto left : {&MergedLayer::k, &MergedLayer::k_bias}) {
        merged_.*left = std::vector<double>();  // gives the memory back
      }
    }
    return values;
  }

 private:
  const MergeMethod* method_;
  ModelConfig config_;
  int64_t layer_;
  HeadGroups groups_;
  uint64_t seed_;
  AttentionTensors tensors_;
  MergedLayer merged_;
};

void rewrite_layer(const ExportJob& job, int64_t layer, Rewrites& rewrites) {
  const ModelConfig& config = job.source.config;
  const HeadGroups& groups = job.plan.groups[layer];
  const std::optional<DType> dtype = job.options.output.dtype;
  const AttentionTensors a = attention_tensors(job.source.checkpoint, layer);
  const auto merge = std::make_shared<LazyMerge>(job, layer, a);
  const HeadGather order{query_order(groups, config.sizes_of_groups(layer)), config.q_heads, 0};
  HeadGather columns = order;
  columns.axis = 1;

  const auto put_merged = [&](const Tensor& source, std::vector<double> MergedLayer::*part) {
    OutputTensor tensor = copy_tensor(source, dtype);
    tensor.shape[0] = std::ssize(groups) * config.head_dim;
    tensor.make = [merge, part] { return merge->take(part); };
    // K and V are merged together.
    tensor.make_bytes = 2 * tensor.elements() * static_cast<int64_t>(sizeof(double));
    rewrites[&source] = std::move(tensor);
  };
  rewrites[a.q] = gather_tensor(*a.q, dtype, order);
  rewrites[a.o] = gather_tensor(*a.o, dtype, columns);
  put_merged(*a.k, &MergedLayer::k);
  put_merged(*a.v, &MergedLayer::v);
  if (!config.attention_bias) return;
  rewrites[a.q_bias] = gather_tensor(*a.q_bias, dtype, order);
  put_merged(*a.k_bias, &MergedLayer::k_bias);
  put_merged(*a.v_bias, &MergedLayer::v_bias);
}

}  // namespace

Conversion plan_convert(const std::filesystem::path& source, const ConvertOptions& options,
                        [[maybe_unused]] const Progress& progress) {
  find_merge(options.merge);  // refuses what it does not know before any file is read
  ExportJob job = open_job("convert", source, options);
  const ModelConfig& config = job.source.config;
  job.plan.groups = make_groups(config, options);
  Rewrites rewrites;
  std::vector<std::vector<int64_t>> sizes;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    rewrite_layer(job, l, rewrites);
    sizes.push_back(merged_sizes(job.plan.groups[l], config.sizes_of_groups(l)));
  }
  finish_job(job, std::move(rewrites), sizes);
  return Conversion(std::make_unique<const ExportJob>(std::move(job)));
}

void convert(const std::filesystem::path& source, const std::filesystem::path& out,
             const ConvertOptions& options, const Progress& progress) {
  check_output_place(source, out, options.output);
  plan_convert(source, options, progress).write(out, progress);
}

}  // namespace gqa
