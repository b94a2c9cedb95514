#include "convert/export.h"

#include <algorithm>
#include <utility>

#include "convert/card.h"
#include "convert/place.h"
#include "convert/recipe.h"
#include "core/fail.h"
#include "io/safetensors_writer.h"
#include "io/staging.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// What everything but the tensors' own bytes may take: headers, config, card, recipe.
constexpr int64_t overhead_bytes = 1 << 20;
constexpr int64_t overhead_bytes_per_tensor = 512;

int64_t bytes_on_disk(const ExportJob& job) {
  int64_t bytes = job.plan.output_bytes + overhead_bytes +
                  overhead_bytes_per_tensor * static_cast<int64_t>(job.tensors.size());
  for (const std::string& name : job.source.carried) {
    std::error_code unknown;
    const auto size = fs::file_size(job.source.dir / name, unknown);
    if (!unknown) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

void write_weights(const ExportJob& job, const fs::path& dir, const Progress& progress) {
  std::vector<TensorSpec> specs;
  for (const OutputTensor& tensor : job.tensors) specs.push_back(tensor.spec());
  SafetensorsWriter writer(dir, std::move(specs), job.options.output.max_shard_bytes);
  TensorMaker maker;
  int64_t done = 0;
  for (const OutputTensor& tensor : job.tensors) {
    if (progress) progress(job.verb, done, job.plan.output_bytes);
    writer.write(maker.make(tensor));
    done += tensor.bytes();
  }
  writer.finish();
  if (progress) progress(job.verb, done, job.plan.output_bytes);
}

}  // namespace

ExportJob open_job(std::string verb, const fs::path& source, const ConvertOptions& options) {
  require(options.output.max_shard_bytes >= 1, "max_shard_bytes: expected at least 1, got {}",
          options.output.max_shard_bytes);
  ExportJob job{.verb = std::move(verb),
                .source = open_source(source),
                .plan = {},
                .options = options,
                .tensors = {}};
  job.plan.source = job.source.config;
  job.plan.notes = job.source.notes;
  if (!check_tokenizer(job.source.config, source)) {
    job.plan.notes.push_back("no tokenizer.json: the result has none either");
  }
  return job;
}

void finish_job(ExportJob& job, Rewrites rewrites, std::vector<int64_t> kv_heads) {
  for (const Tensor* tensor : job.source.tensors) {
    const auto rewrite = rewrites.find(tensor);
    job.tensors.push_back(rewrite == rewrites.end() ? copy_tensor(*tensor, job.options.output.dtype)
                                                    : std::move(rewrite->second));
  }
  ConvertPlan& plan = job.plan;
  plan.result = plan.source;
  plan.result.kv_heads = std::move(kv_heads);
  const DType source_dtype = default_kv_dtype(job.source.checkpoint);
  const DType result_dtype = job.options.output.dtype.value_or(source_dtype);
  plan.source_kv_bytes_per_token = kv_bytes_per_token(plan.source, source_dtype);
  plan.result_kv_bytes_per_token = kv_bytes_per_token(plan.result, result_dtype);
  int64_t converted = 0, gathered = 0, made = 0;
  for (const OutputTensor& tensor : job.tensors) {
    plan.output_bytes += tensor.bytes();
    converted = std::max(converted, tensor.converted_bytes());
    gathered = std::max(gathered, tensor.gathered_bytes());
    made = std::max(made, tensor.make_bytes);
  }
  plan.peak_memory_bytes = converted + gathered + made;
}

Conversion::Conversion(std::unique_ptr<const ExportJob> job) : job_(std::move(job)) {}
Conversion::~Conversion() = default;
Conversion::Conversion(Conversion&& other) noexcept = default;
Conversion& Conversion::operator=(Conversion&& other) noexcept = default;

const ConvertPlan& Conversion::plan() const { return job_->plan; }

void check_output_place(const fs::path& source, const fs::path& out, const ExportOptions& options) {
  StagingDir::check(check_apart(source, out), options.force);
}

void Conversion::check(const fs::path& out) const {
  check_output_place(job_->source.dir, out, job_->options.output);
  check_free_space(without_slash(out), bytes_on_disk(*job_));
}

void Conversion::write(const fs::path& out, const Progress& progress) const {
  check(out);
  const ExportJob& job = *job_;
  StagingDir staging(without_slash(out), job.options.output.force);
  const fs::path& dir = staging.path();
  write_weights(job, dir, progress);
  write_file(dir / "config.json", result_config(job).dump(2) + "\n");
  for (const std::string& name : job.source.carried) {
    copy_file_synced(job.source.dir / name, dir / name);
  }
  write_file(dir / "README.md", model_card(job));
  write_file(dir / recipe_name, make_recipe(job, dir, progress));
  staging.commit();
}

Json result_config(const ExportJob& job) {
  Json config = job.source.config_json;
  const std::vector<int64_t>& kv_heads = job.plan.result.kv_heads;
  const bool even = std::ranges::count(kv_heads, kv_heads[0]) == std::ssize(kv_heads);
  config["num_key_value_heads"] = even ? Json(kv_heads[0]) : Json(kv_heads);
  config["head_dim"] = job.plan.result.head_dim;
  if (job.options.output.dtype) {
    // Today's key is `dtype`; what was written before transformers 4.56 has `torch_dtype`.
    const DType dtype = *job.options.output.dtype;
    const char* name = dtype == DType::f32   ? "float32"
                       : dtype == DType::f16 ? "float16"
                                             : "bfloat16";
    const bool has_new = config.contains("dtype");
    if (has_new) config["dtype"] = name;
    if (config.contains("torch_dtype") || !has_new) config["torch_dtype"] = name;
  }
  return config;
}

}  // namespace gqa
