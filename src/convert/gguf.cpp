#include "gqa/gguf.h"

#include <algorithm>
#include <utility>

#include "convert/gguf_metadata.h"
#include "convert/gguf_tensors.h"
#include "convert/gguf_tokenizer.h"
#include "convert/place.h"
#include "convert/source.h"
#include "io/staged_file.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

constexpr const char* magic = "GGUF";

/// Everything that is known before the first byte is written.
struct GgufJob {
  SourceModel source;
  std::vector<GgufOutput> outputs;
  GgufMetadata metadata;
  GgufPlan plan;

  std::vector<GgufTensor> tensors() const {
    std::vector<GgufTensor> tensors;
    for (const GgufOutput& output : outputs) tensors.push_back(output.tensor);
    return tensors;
  }
};

void note_fallback(GgufJob& job, const GgufOptions& options) {
  if (options.dtype != GgufDType::q8_0) return;
  const auto falls_back = [](const GgufOutput& output) {
    return output.tensor.dtype == GgufDType::f16;
  };
  const auto n = std::ranges::count_if(job.outputs, falls_back);
  if (n == 0) return;
  job.plan.notes.push_back(fmt::format("{} of {} tensors are f16: their rows are no multiple of {}",
                                       n, job.outputs.size(), q8_0_block));
}

GgufJob open_gguf_job(const fs::path& dir, const GgufOptions& options) {
  GgufJob job{open_source(dir), {}, {}, {}};
  GgufPlan& plan = job.plan;
  plan.source = job.source.config;
  plan.notes = job.source.notes;
  plan.architecture = gguf_architecture(plan.source);
  std::optional<GgufTokenizer> tokenizer;
  if (check_tokenizer(plan.source, dir)) {
    tokenizer = gguf_tokenizer(dir / "tokenizer.json", plan.source.vocab_size);
  }
  plan.tokenizer = tokenizer ? tokenizer->model : "no_vocab";
  job.outputs = gguf_outputs(job.source, options.dtype);
  const auto matrix = std::ranges::find_if(job.outputs, [](const GgufOutput& output) {
    return output.tensor.name == "blk.0.attn_q.weight";
  });
  job.metadata = gguf_metadata(job.source, options.dtype.value_or(matrix->tensor.dtype), tokenizer,
                               plan.notes);
  note_fallback(job, options);
  plan.tensors = std::ssize(job.outputs);
  plan.output_bytes = gguf_file_bytes(job.metadata, job.tensors());
  for (const GgufOutput& output : job.outputs) {
    plan.peak_memory_bytes = std::max(plan.peak_memory_bytes, output.tensor.bytes());
  }
  return job;
}

}  // namespace

GgufPlan plan_gguf(const fs::path& source, const GgufOptions& options) {
  return open_gguf_job(source, options).plan;
}

void check_gguf_place(const fs::path& out, bool force) { StagedFile::check(out, force, magic); }

void export_gguf(const fs::path& source, const fs::path& out, const GgufOptions& options,
                 const Progress& progress) {
  const GgufJob job = open_gguf_job(source, options);
  check_gguf_place(out, options.force);
  check_free_space(out, job.plan.output_bytes);
  StagedFile staged(out, options.force, magic);
  GgufWriter writer(staged.path(), job.metadata, job.tensors());
  GgufTensorMaker maker;
  int64_t done = 0;
  for (const GgufOutput& output : job.outputs) {
    if (progress) progress("export", done, job.plan.output_bytes);
    writer.write(maker.make(output));
    done += output.tensor.bytes();
  }
  writer.finish();
  staged.commit();
  if (progress) progress("export", job.plan.output_bytes, job.plan.output_bytes);
}

}  // namespace gqa
