#include "gqa/tune.h"

#include <algorithm>
#include <memory>
#include <random>
#include <utility>

#include "convert/file_hasher.h"
#include "convert/recipe.h"
#include "convert/source.h"
#include "core/fail.h"
#include "core/text.h"
#include "gqa/eval.h"
#include "io/lock_file.h"
#include "io/sha256.h"
#include "io/staging.h"
#include "tune/candidates.h"
#include "tune/state.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// The length of the part to calibrate with: nine tenths, up to the end of a line, else of a
/// character.
size_t cut_text(const std::string& text, const fs::path& file) {
  size_t cut = text.size() / 10 * 9;
  const size_t line = text.rfind('\n', cut);
  if (line != text.npos && line + 1 >= text.size() / 2) {
    cut = line + 1;
  } else {
    while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  }
  if (cut == 0 || cut == text.size()) {
    fail(ErrorKind::bad_data, "{}: {} bytes: too short to part into calibration and judgement",
         file.string(), text.size());
  }
  return cut;
}

/// The folder to work in; one of our own goes when we are done.
class WorkFolder {
 public:
  explicit WorkFolder(const fs::path& wanted) : path_(wanted), own_(wanted.empty()) {
    std::error_code error;
    if (own_) {
      path_ = fs::temp_directory_path(error) /
              fmt::format("gqa-tune-{:08x}{:08x}", std::random_device()(), std::random_device()());
    }
    if (!error) fs::create_directories(path_, error);
    if (error) fail(ErrorKind::cannot_create, "{}: {}", path_.string(), error.message());
    lock_ = std::make_unique<LockFile>(path_ / "lock");
  }
  ~WorkFolder() {
    lock_.reset();
    std::error_code ignored;
    if (own_) fs::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  bool own_;
  std::unique_ptr<LockFile> lock_;
};

/// Content of all files that a measurement depends on.
Json hashes_of(const fs::path& model, const std::string& text, const Progress& progress) {
  std::vector<fs::path> files = source_files(model, Checkpoint::open(model));
  files.push_back(model / "tokenizer.json");
  Json json;
  for (const auto& [name, hash] : FileHasher(files, 0).hashes(progress)) json[name] = hash;
  Sha256 sha;
  sha.update(std::as_bytes(std::span(text)));
  json["text"] = sha.hex();
  return json;
}

class Tuner {
 public:
  Tuner(const fs::path& model, const TuneOptions& options, const Progress& progress)
      : model_(model), options_(options), progress_(progress), config_(load_config(model)) {
    require(!options.keep || !options.work.empty(), "keeping candidates takes a folder to work in");
    make_candidates(config_, options, {});  // refuses before anything is written
    text_ = read_text(options.text);
    cut_ = cut_text(text_, options.text);
    original_.emplace(Model::load(model, progress));
    tokenizer_.emplace(Tokenizer::load(model / "tokenizer.json"));
    context_.emplace(ContextOptions{.threads = options.threads, .isa = options.isa});
    files_ = hashes_of(model, text_, progress);
  }

  TuneResult run() {
    const WorkFolder work(options_.work);
    const fs::path calibration_text = work.path() / "calibration.txt";
    write_file(calibration_text, text_.substr(0, cut_));
    TuneState state(work.path() / "tune.jsonl");
    candidates_ = make_candidates(config_, options_, calibration_text);
    result_.points.push_back(measure_original());
    for (const Candidate& candidate : candidates_) {
      result_.points.push_back(point_of(candidate, work.path() / candidate.name, state));
      ++done_;
    }
    std::error_code ignored;
    fs::remove(calibration_text, ignored);
    result_.calibration_bytes = static_cast<int64_t>(cut_);
    std::stable_sort(result_.points.begin() + 1, result_.points.end(),
                     [](const TunePoint& a, const TunePoint& b) {
                       return a.kv_bytes_per_token > b.kv_bytes_per_token;
                     });
    mark_front(result_.points);
    return std::move(result_);
  }

 private:
  /// The work on one candidate, named so that one sees how many are to come.
  Progress phase() const {
    if (!progress_) return {};
    return [this](std::string_view what, int64_t done, int64_t total) {
      progress_(fmt::format("{} of {}: {}", done_ + 1, candidates_.size(), what), done, total);
    };
  }

  EvalResult judge(const Model& model, const Model* against) {
    return evaluate(*context_, model, *tokenizer_, std::string_view(text_).substr(cut_), {},
                    against, phase());
  }

  TunePoint measure_original() {
    const EvalResult found = judge(*original_, nullptr);
    result_.judged_tokens = found.tokens;
    TunePoint point;
    point.name = "original";
    point.layer_kv_heads = config_.kv_heads;
    point.kv_bytes_per_token =
        kv_bytes_per_token(config_, default_kv_dtype(Checkpoint::open(model_)));
    point.ppl = found.ppl;
    return point;
  }

  Json description(const ConvertOptions& options) const {
    const Calibration& calibration = *options.calibration;
    return {{"version", 1},
            {"files", files_},
            {"kv_heads", options.kv_heads},
            {"budget", options.budget ? Json(*options.budget) : Json()},
            {"grouping", options.grouping},
            {"merge", options.merge},
            {"seed", options.seed},
            {"steps", calibration.steps},
            {"calibration_tokens", calibration.tokens}};
  }

  TunePoint point_of(const Candidate& candidate, const fs::path& folder, TuneState& state) {
    const ConvertOptions& options = candidate.options;
    const Json of = description(options);
    std::optional<TunePoint> point = state.find(of);
    if (options_.keep && !fs::exists(folder)) point.reset();
    if (point) {
      ++result_.reused;
    } else {
      point = measure(options, folder);
      state.put(of, *point);
    }
    point->name = candidate.name;
    point->kv_heads = options.kv_heads;
    point->budget = options.budget;
    point->grouping = options.grouping;
    point->merge = options.merge;
    return *point;
  }

  TunePoint measure(const ConvertOptions& options, const fs::path& folder) {
    const Conversion conversion = plan_convert(model_, options, phase());
    conversion.write(folder, phase());
    const EvalResult found = judge(Model::load(folder), &*original_);
    TunePoint point;
    point.layer_kv_heads = conversion.plan().result.kv_heads;
    point.kv_bytes_per_token = conversion.plan().result_kv_bytes_per_token;
    point.ppl = found.ppl;
    point.kl = *found.kl;
    std::error_code ignored;
    if (!options_.keep) fs::remove_all(folder, ignored);
    return point;
  }

  const fs::path& model_;
  const TuneOptions& options_;
  const Progress& progress_;
  ModelConfig config_;
  std::string text_;
  size_t cut_ = 0;  ///< where judgement begins
  std::optional<Model> original_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<Context> context_;
  Json files_;
  std::vector<Candidate> candidates_;
  size_t done_ = 0;
  TuneResult result_;
};

}  // namespace

TuneResult tune(const fs::path& model, const TuneOptions& options, const Progress& progress) {
  return Tuner(model, options, progress).run();
}

}  // namespace gqa
