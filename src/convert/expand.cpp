#include <memory>
#include <utility>

#include "convert/export.h"
#include "gqa/convert.h"

namespace gqa {
namespace {

/// Query head h of a layer reads this KV head.
HeadGroups kv_head_of_each_query_head(int64_t q_heads, int64_t kv_heads) {
  HeadGroups groups;
  for (int64_t h = 0; h < q_heads; ++h) groups.push_back({h / (q_heads / kv_heads)});
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
    job.plan.groups.push_back(kv_head_of_each_query_head(config.q_heads, config.kv_heads[l]));
    rewrite_layer(job, l, rewrites);
  }
  finish_job(job, std::move(rewrites), std::vector<int64_t>(config.n_layers, config.q_heads));
  return Conversion(std::make_unique<const ExportJob>(std::move(job)));
}

void expand(const std::filesystem::path& source, const std::filesystem::path& out,
            const ExportOptions& options, const Progress& progress) {
  check_output_place(source, out, options);
  plan_expand(source, options, progress).write(out, progress);
}

}  // namespace gqa
