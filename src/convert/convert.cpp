#include "gqa/convert.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <utility>

#include "convert/budget_groups.h"
#include "convert/calibration_needs.h"
#include "convert/calibration_text.h"
#include "convert/calibration_time.h"
#include "convert/calibrator.h"
#include "convert/export.h"
#include "convert/grouping.h"
#include "convert/kv_rank.h"
#include "convert/merge.h"
#include "convert/merge_matrices.h"
#include "convert/place.h"
#include "io/json_value.h"
#include "io/key_directions.h"

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

using MergeLayer = std::function<MergedLayer(const Progress&)>;

/// Merges a layer when the first of its new tensors is asked for, and keeps what was not asked for
/// yet.
class LazyMerge {
 public:
  explicit LazyMerge(MergeLayer merge) : merge_(std::move(merge)) {}

  std::vector<double> take(std::vector<double> MergedLayer::*part, const Progress& progress) {
    if ((merged_.*part).empty()) merged_ = merge_(progress);
    // Tensors are written in this order: what comes before is not wanted any more.
    for (auto before :
         {&MergedLayer::q, &MergedLayer::q_bias, &MergedLayer::k, &MergedLayer::k_bias,
          &MergedLayer::v, &MergedLayer::v_bias, &MergedLayer::o}) {
      if (before == part) break;
      merged_.*before = std::vector<double>();  // gives the memory back
    }
    return std::exchange(merged_.*part, std::vector<double>());
  }

 private:
  MergeLayer merge_;
  MergedLayer merged_;
};

MergeLayer layer_merger(const ExportJob& job, int64_t layer) {
  if (job.calibrator != nullptr) {
    return [calibrator = job.calibrator, layer, groups = job.plan.groups](
               const Progress& progress) { return calibrator->convert(layer, groups, progress); };
  }
  return [method = &find_merge(job.options.merge), config = job.source.config, layer,
          groups = job.plan.groups[layer], seed = job.options.seed, planes = job.plan.planes,
          tensors = attention_tensors(job.source.checkpoint, layer),
          norm = &attention_norm(job.source.checkpoint, layer)](const Progress&) {
    for (const Tensor* t : {tensors.k, tensors.v, tensors.k_bias, tensors.v_bias}) {
      if (t != nullptr) check_finite(*t);
    }
    return method->merge({config, layer, groups, seed, tensors, *norm, planes});
  };
}

int64_t kept_head_dim(const ExportJob& job) {
  return job.plan.planes.empty() ? job.source.config.head_dim : 2 * std::ssize(job.plan.planes);
}

/// Where low-rank attention finds in which directions a layer's keys lie.
OutputTensor direction_tensor(const ExportJob& job, int64_t layer) {
  const int64_t head_dim = kept_head_dim(job);
  OutputTensor tensor;
  tensor.name = key_directions_tensor(layer);
  tensor.shape = {std::ssize(job.plan.groups[layer]), head_dim, head_dim};
  tensor.make = [calibrator = job.calibrator, layer,
                 groups = job.plan.groups](const Progress& progress) {
    return calibrator->key_directions(layer, groups, progress);
  };
  tensor.make_bytes = tensor.elements() * static_cast<int64_t>(sizeof(double));
  return tensor;
}

void rewrite_layer(const ExportJob& job, int64_t layer, Rewrites& rewrites) {
  const ModelConfig& config = job.source.config;
  const HeadGroups& groups = job.plan.groups[layer];
  const std::optional<DType> dtype = job.options.output.dtype;
  const AttentionTensors a = attention_tensors(job.source.checkpoint, layer);
  const std::shared_ptr<Calibrator>& calibrator = job.calibrator;
  const bool keeps_queries = calibrator == nullptr && find_merge(job.options.merge).keeps_queries;
  const auto merge = std::make_shared<LazyMerge>(layer_merger(job, layer));
  const int64_t head_dim = kept_head_dim(job);
  const int64_t kv_rows = std::ssize(groups) * head_dim;
  // K and V are merged together.
  const int64_t memory = keeps_queries
                             ? 2 * kv_rows * config.width * static_cast<int64_t>(sizeof(double))
                             : merge_matrices_bytes(config, layer, std::ssize(groups));
  // `extent`: of the axis that heads lie along.
  const auto put_merged = [&](const Tensor* source, std::vector<double> MergedLayer::*part,
                              int64_t extent, size_t axis = 0) {
    OutputTensor tensor = copy_tensor(*source, dtype);
    tensor.shape[axis] = extent;
    tensor.make = [merge, part](const Progress& progress) { return merge->take(part, progress); };
    tensor.make_bytes = memory;
    if (calibrator != nullptr) {
      tensor.written = [calibrator, layer, part, stored = tensor.dtype](WrittenTensor where) {
        calibrator->found(layer, part, stored, std::move(where));
      };
      if (part == &MergedLayer::q) {
        tensor.note = [calibrator, layer] { return calibrator->refinement_note(layer); };
      }
    }
    rewrites[source] = std::move(tensor);
  };
  const HeadGather order{query_order(groups, config.sizes_of_groups(layer)), config.q_heads, 0};
  HeadGather columns = order;
  columns.axis = 1;
  const int64_t q_rows = config.q_heads * head_dim;
  const auto put_queries = [&](const Tensor* source, std::vector<double> MergedLayer::*part,
                               const HeadGather& gather) {
    if (keeps_queries) {
      rewrites[source] = gather_tensor(*source, dtype, gather);
    } else {
      put_merged(source, part, q_rows, static_cast<size_t>(gather.axis));
    }
  };
  put_queries(a.q, &MergedLayer::q, order);
  put_queries(a.o, &MergedLayer::o, columns);
  put_merged(a.k, &MergedLayer::k, kv_rows);
  put_merged(a.v, &MergedLayer::v, kv_rows);
  if (!config.attention_bias) return;
  put_queries(a.q_bias, &MergedLayer::q_bias, order);
  put_merged(a.k_bias, &MergedLayer::k_bias, kv_rows);
  put_merged(a.v_bias, &MergedLayer::v_bias, kv_rows);
}

std::vector<HeadGroups> plan_groups(const ExportJob& job, Calibrator* calibrator,
                                    const Progress& progress) {
  const ModelConfig& config = job.source.config;
  const ConvertOptions& options = job.options;
  const bool all_heads =
      options.kv_rank && options.kv_heads == 0 && !options.grouping.starts_with("manual");
  if (all_heads) return every_head_alone(config);
  const auto grouped = options.budget ? budget_groups : make_groups;
  const bool sizes_alone = options.calibration && options.output.dry_run;
  return grouped(config, options, {&job.source.checkpoint, calibrator, sizes_alone}, progress);
}

/// What learning from the text takes, and what it means for the plan.
void plan_calibration(ExportJob& job, const CalibrationWindows& text) {
  const ModelConfig& config = job.source.config;
  ConvertPlan& plan = job.plan;
  plan.peak_memory_bytes =
      std::max(plan.peak_memory_bytes, calibration_memory(config, text, job.options));
  if (job.options.calibration->steps == 0) return;
  size_t most = 0;
  for (const HeadGroups& groups : plan.groups) most = std::max(most, groups.size());
  const std::string warning = few_tokens(config, text.tokens(), static_cast<int64_t>(most));
  if (!warning.empty()) plan.notes.push_back(warning);
}

/// An estimate in place of what only the text can tell.
void plan_dry_run(ExportJob& job, const CalibrationWindows& text) {
  ConvertPlan& plan = job.plan;
  plan.seconds = estimate_seconds(job.source, plan.result, job.options, text);
  if (is_grouped_on_text(job.options)) {
    plan.groups.clear();
    plan.notes.push_back(
        job.options.budget ? "the text decides how many KV heads each layer gets, and which heads "
                             "become one: numbers are those that weights alone would give"
                           : "the text decides which heads become one");
  }
  if (!plan.planes.empty()) plan.notes.push_back("the text decides which rotary planes stay");
  plan.planes.clear();
}

/// How these groups were learned; a budget tries others, too.
std::vector<LayerGrouping> learned_of(const Calibrator& calibrator,
                                      const std::vector<HeadGroups>& groups) {
  std::vector<LayerGrouping> learned;
  std::ranges::copy_if(calibrator.learned(), std::back_inserter(learned),
                       [&](const LayerGrouping& layer) {
                         const auto at = static_cast<size_t>(layer.layer);
                         return layer.tried.front().groups.size() == groups[at].size();
                       });
  return learned;
}

}  // namespace

Conversion plan_convert(const std::filesystem::path& source, const ConvertOptions& options,
                        const Progress& progress) {
  find_merge(options.merge);  // refuses what it does not know before any file is read
  if (options.budget) check_budget(options);
  if (options.kv_rank) check_kv_rank(options);
  auto owned = std::make_unique<ExportJob>(open_job("convert", source, options));
  ExportJob& job = *owned;
  const ModelConfig& config = job.source.config;
  if (options.kv_rank) check_kv_rank(config, *options.kv_rank);
  CalibrationText text;  // of a dry run
  if (options.calibration && options.output.dry_run) {
    text = calibration_text_sizes(job.source, options);
  } else if (options.calibration) {
    job.calibrator = std::make_shared<Calibrator>(job.source, options, progress);
    job.options.calibration->sha256 = job.calibrator->text_sha256();
  }
  Calibrator* const calibrator = job.calibrator.get();
  job.plan.groups = plan_groups(job, calibrator, progress);
  job.plan.budget = options.budget;
  if (calibrator != nullptr) job.plan.learned = learned_of(*calibrator, job.plan.groups);
  if (options.kv_rank) {
    job.plan.planes =
        plan_planes(job.source, *options.kv_rank, job.plan.groups, calibrator, progress);
  }
  Rewrites rewrites;
  std::vector<std::vector<int64_t>> sizes;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    rewrite_layer(job, l, rewrites);
    if (options.calibration) job.key_directions.push_back(direction_tensor(job, l));
    sizes.push_back(merged_sizes(job.plan.groups[l], config.sizes_of_groups(l)));
  }
  finish_job(job, std::move(rewrites), sizes);
  if (calibrator != nullptr) plan_calibration(job, calibrator->text());
  if (options.calibration && options.output.dry_run) {
    plan_calibration(job, text.windows);
    plan_dry_run(job, text.windows);
  }
  return Conversion(std::move(owned));
}

void convert(const std::filesystem::path& source, const std::filesystem::path& out,
             const ConvertOptions& options, const Progress& progress) {
  check_output_place(source, out, options.output);
  ConvertOptions here = options;
  if (here.calibration && here.calibration->scratch.empty()) {
    here.calibration->scratch = std::filesystem::absolute(without_slash(out)).parent_path();
  }
  plan_convert(source, here, progress).write(out, progress);
}

}  // namespace gqa
