#include <memory>
#include <utility>

#include "convert/export.h"
#include "gqa/convert.h"

namespace gqa {
namespace {

/// Query head h of a layer reads this KV head. `sizes`: query heads of each.
HeadGroups kv_head_of_each_query_head(const std::vector<int64_t>& sizes) {
  HeadGroups groups;
  for (int64_t g = 0; g < std::ssize(sizes); ++g) groups.insert(groups.end(), sizes[g], {g});
  return groups;
}

void rewrite_layer(const ExportJob& job, int64_t layer, Rewrites& rewrites) {
  const AttentionTensors a = attention_tensors(job.source.checkpoint, layer);
  HeadGather repeat{{}, job.source.config.kv_heads[layer], 0};
  for (const auto& group : job.plan.groups[layer]) repeat.heads.push_back(group[0]);
  for (const Tensor* tensor : {a.k, a.v, a.k_bias, a.v_bias}) {
    if (tensor == nullptr) continue;
    rewrites[tensor] = gather_tensor(*tensor, job.options.output.dtype, repeat);
  }
}

}  // namespace

Conversion plan_expand(const std::filesystem::path& source, const ExportOptions& options,
                       [[maybe_unused]] const Progress& progress) {
  ConvertOptions all;
  all.output = options;
  ExportJob job = open_job("expand", source, all);
  const ModelConfig& config = job.source.config;
  Rewrites rewrites;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    job.plan.groups.push_back(kv_head_of_each_query_head(config.sizes_of_groups(l)));
    rewrite_layer(job, l, rewrites);
  }
  const std::vector<int64_t> one_each(config.q_heads, 1);
  finish_job(job, std::move(rewrites), std::vector(config.n_layers, one_each));
  return Conversion(std::make_unique<const ExportJob>(std::move(job)));
}

void expand(const std::filesystem::path& source, const std::filesystem::path& out,
            const ExportOptions& options, const Progress& progress) {
  check_output_place(source, out, options);
  plan_expand(source, options, progress).write(out, progress);
}

}  // namespace gqa
