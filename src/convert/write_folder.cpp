#include "convert/write_folder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "convert/calibrator.h"
#include "convert/card.h"
#include "convert/file_hasher.h"
#include "convert/modelling_code.h"
#include "convert/recipe.h"
#include "convert/write_weights.h"
#include "core/fail.h"
#include "gqa/context.h"
#include "io/json_value.h"
#include "io/sha256.h"
#include "io/staging.h"
#include "io/write_journal.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// What transformers of all releases reads: theta outside, the factors under the older name.
/// `factor` is 1, as what it would change is given.
void set_rope(Json& config, const RopeConfig& rope) {
  for (const char* key : {"rope_parameters", "original_max_position_embeddings"}) config.erase(key);
  config["rope_theta"] = rope.theta;
  config["rope_scaling"] = {{"rope_type", "longrope"},
                            {"short_factor", rope.short_factors},
                            {"long_factor", rope.long_factors},
                            {"factor", 1.0},
                            {"attention_factor", rope.attention_factor.value()},
                            {"original_max_position_embeddings", rope.original_positions}};
}

/// The source's config.json with the result's KV heads, head size and dtype, and with the model
/// type that these need (modelling_code.h); all else as it was.
Json result_config(const ExportJob& job) {
  Json config = *job.source.config_json;
  set_model_type(config, job.plan.result);
  config["head_dim"] = job.plan.result.head_dim;
  if (!job.plan.planes.empty()) set_rope(config, job.plan.result.rope);
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

/// Threads of all kinds that a conversion may use.
int thread_count(const ExportJob& job) {
  const int wanted = job.options.output.threads;
  return wanted == 0 ? default_threads() : wanted;
}

/// Everything beside weights and recipe; their hashes.
std::vector<FileHash> write_other_files(const ExportJob& job, const fs::path& dir) {
  std::vector<std::string> names = {"config.json", "README.md"};
  write_file(dir / "config.json", result_config(job).dump(2) + "\n");
  write_file(dir / "README.md", model_card(job));
  if (!job.plan.result.is_uniform()) {
    write_file(dir / modelling_code_name, std::string(modelling_code()));
    names.emplace_back(modelling_code_name);
  }
  for (const std::string& name : job.source.carried) {
    copy_file_synced(job.source.dir / name, dir / name);
    names.push_back(name);
  }
  std::vector<FileHash> hashes;
  for (const std::string& name : names) hashes.push_back({name, sha256_of_file(dir / name)});
  return hashes;
}

/// Fills the folder and puts it in place. `journal`: of a folder that is kept, or null.
class FolderWriter {
 public:
  FolderWriter(const ExportJob& job, const Progress& progress)
      : job_(job),
        progress_(progress),
        pool_(std::min(thread_count(job), most_at_once)),
        hasher_(source_files(job.source.dir, job.source.checkpoint),
                std::min(thread_count(job) - 1, most_at_once)) {}

  void write_at_once(const fs::path& out) {
    StagingDir staging(out, job_.options.output.force);
    auto weights = write_better(
        staging, [&] { return write_weights(job_, staging.path(), nullptr, pool_, progress_); });
    finish(staging, describe(job_, hasher_.hashes(progress_)), std::move(weights));
  }

  /// What this is a conversion of must be known before the first byte is kept, or gone on with.
  void write_resumably(const fs::path& out) {
    const auto source = hasher_.hashes(progress_);
    const auto description = [&] { return describe(job_, source); };
    StagingDir staging(out, job_.options.output.force, Unfinished::kept);
    const fs::path dir = staging.path();
    // A run that was killed when all was in place left a journal; so does who deletes the folder.
    if (fs::is_empty(dir)) WriteJournal::discard(dir);
    if (job_.calibrator && WriteJournal::subject(dir) == without_fitting(description())) {
      job_.calibrator->give_up();
    }
    clear_unless_same(staging, description());
    auto weights = write_better(staging, [&] {
      WriteJournal journal(dir, description());
      return write_weights(job_, dir, &journal, pool_, progress_);
    });
    finish(staging, description(), std::move(weights));
    WriteJournal::discard(dir);  // not sooner: whatever comes before then, the same command goes on
  }

 private:
  /// What `write` gives; anew, merged alone, where fitting made the model worse.
  template <typename Write>
  std::vector<FileHash> write_better(const StagingDir& staging, const Write& write) const {
    std::vector<FileHash> weights = write();
    Calibrator* const calibrator = job_.calibrator.get();
    if (!calibrator || calibrator->keeps_fitting(job_.plan.groups, progress_)) return weights;
    calibrator->give_up();
    staging.empty();
    return write();
  }

  void finish(StagingDir& staging, const Json& description, std::vector<FileHash> files) {
    const auto directions = write_key_directions(job_, staging.path(), pool_, progress_);
    files.insert(files.end(), directions.begin(), directions.end());
    const auto others = write_other_files(job_, staging.path());
    files.insert(files.end(), others.begin(), others.end());
    write_file(staging.path() / recipe_name, recipe_text(description, files));
    staging.commit();
  }

  /// Throws Error (cannot_create) for the remains of another conversion, without force.
  void clear_unless_same(const StagingDir& staging, const Json& description) const {
    const auto found = WriteJournal::subject(staging.path());
    if (found == description) return;
    if (found && !job_.options.output.force) {
      fail(ErrorKind::cannot_create,
           "{}: holds part of a conversion with another {}; force (--force) discards it",
           staging.path().string(), difference(*found, description));
    }
    staging.empty();
  }

  /// The first part that differs.
  static std::string difference(const Json& found, const Json& wanted) {
    for (const auto& [key, value] : wanted.items()) {
      if (!found.contains(key)) return key;
      if (found[key] == value) continue;
      if (!value.is_object() || !found[key].is_object()) return key;
      return fmt::format("{}: {}", key, difference(found[key], value));
    }
    return "program";
  }

  static constexpr int most_at_once = 3;  ///< making, storing and hashing; files to hash

  const ExportJob& job_;
  const Progress& progress_;
  ThreadPool pool_;
  FileHasher hasher_;
};

}  // namespace

void write_folder(const ExportJob& job, const fs::path& out, const Progress& progress) {
  FolderWriter writer(job, progress);
  if (job.options.output.resume) {
    writer.write_resumably(out);
  } else {
    writer.write_at_once(out);
  }
}

}  // namespace gqa
