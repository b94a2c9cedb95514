#include "convert/export.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "convert/modelling_code.h"
#include "convert/place.h"
#include "convert/write_folder.h"
#include "convert/write_weights.h"
#include "core/fail.h"
#include "io/staging.h"
#include "model/rope.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// What everything but the tensors' own bytes may take: headers, config, card, recipe.
constexpr int64_t overhead_bytes = 1 << 20;
constexpr int64_t overhead_bytes_per_tensor = 512;

/// What the program itself takes before it converts anything: measured.
constexpr int64_t base_memory_bytes = int64_t{2} << 20;

int64_t bytes_on_disk(const ExportJob& job) {
  int64_t bytes = job.plan.output_bytes + overhead_bytes +
                  overhead_bytes_per_tensor * static_cast<int64_t>(job.tensors.size());
  for (const OutputTensor& tensor : job.key_directions) {
    bytes += tensor.bytes() + overhead_bytes_per_tensor;
  }
  for (const std::string& name : job.source.carried) {
    std::error_code unknown;
    const auto size = fs::file_size(job.source.dir / name, unknown);
    if (!unknown) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

/// Memory that checking the tokenizer took, and gave back.
int64_t tokenizer_bytes(const SourceModel& source) {
  constexpr int64_t bytes_per_byte = 18;  // of tokenizer.json: measured
  std::error_code none;
  const auto size = fs::file_size(source.dir / "tokenizer.json", none);
  return none ? 0 : bytes_per_byte * static_cast<int64_t>(size);
}

/// Of a folder's files; 0 where there is none.
int64_t bytes_in(const fs::path& dir) {
  int64_t bytes = 0;
  std::error_code error;
  for (fs::directory_iterator it(dir, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    std::error_code unknown;
    const auto size = it->file_size(unknown);
    if (!unknown) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

void set_groups(ModelConfig& config, const std::vector<std::vector<int64_t>>& sizes) {
  config.kv_heads.clear();
  config.group_sizes = sizes;
  for (auto& layer : config.group_sizes) {
    config.kv_heads.push_back(std::ssize(layer));
    const bool equal = std::ranges::count(layer, layer.front()) == std::ssize(layer);
    if (equal) layer.clear();
  }
  if (!config.has_unequal_groups()) config.group_sizes.clear();
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
#if defined(__GLIBC__)
  ::malloc_trim(0);  // a large tokenizer's memory is not to add to what writing takes
#endif
  return job;
}

void finish_job(ExportJob& job, Rewrites rewrites, const std::vector<std::vector<int64_t>>& sizes) {
  for (const Tensor* tensor : job.source.tensors) {
    const auto rewrite = rewrites.find(tensor);
    job.tensors.push_back(rewrite == rewrites.end() ? copy_tensor(*tensor, job.options.output.dtype)
                                                    : std::move(rewrite->second));
  }
  ConvertPlan& plan = job.plan;
  plan.result = plan.source;
  set_groups(plan.result, sizes);
  if (!plan.planes.empty()) {
    plan.result.rope = rope_of_planes(plan.source.rope, plan.source.head_dim, plan.planes,
                                      plan.source.max_positions);
    plan.result.head_dim = 2 * std::ssize(plan.planes);
  }
  if (!plan.result.is_uniform()) {
    plan.notes.push_back(
        fmt::format("no class of transformers is such a model: it runs {} with "
                    "trust_remote_code=True, and refuses the model without",
                    modelling_code_name));
  }
  const DType source_dtype = default_kv_dtype(job.source.checkpoint);
  const DType result_dtype = job.options.output.dtype.value_or(source_dtype);
  plan.source_kv_bytes_per_token = kv_bytes_per_token(plan.source, source_dtype);
  plan.result_kv_bytes_per_token = kv_bytes_per_token(plan.result, result_dtype);
  int64_t made = 0;
  for (const OutputTensor& tensor : job.tensors) {
    plan.output_bytes += tensor.bytes();
    made = std::max(made, tensor.make_bytes);
  }
  plan.peak_memory_bytes =
      base_memory_bytes + std::max(tokenizer_bytes(job.source), write_weights_bytes() + made);
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
  const ExportOptions& options = job_->options.output;
  check_output_place(job_->source.dir, out, options);
  int64_t need_bytes = bytes_on_disk(*job_);
  if (options.resume) need_bytes -= bytes_in(StagingDir::kept_path(without_slash(out)));
  check_free_space(without_slash(out), std::max<int64_t>(need_bytes, 0));
}

void Conversion::write(const fs::path& out, const Progress& progress) const {
  require(!job_->options.output.dry_run, "the plan of a dry run can't be written");
  check(out);
  write_folder(*job_, without_slash(out), progress);
}

}  // namespace gqa
