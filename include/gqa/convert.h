// Checkpoints to checkpoints: fewer KV heads, or more.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gqa/config.h"
#include "gqa/progress.h"

namespace gqa {
#pragma GCC visibility push(default)

/// How a converted checkpoint is written.
struct ExportOptions {
  std::optional<DType> dtype;  ///< none: each tensor keeps its own
  int64_t max_shard_bytes = 5'000'000'000;
  bool force = false;   ///< replace an existing model folder, discard the remains of another run
  bool resume = false;  ///< keep what is done if the work stops, and go on with what was kept
  int threads = 0;      ///< 0: default_threads(); the result does not depend on it
  /// Only plan: calibration text does not go through the model, and what it would decide is left
  /// out. Such a plan can't be written.
  bool dry_run = false;
};

/// How refining went for one layer. An error is the mean of two: that of what attention puts out,
/// and that of what the MLP makes of it, each squared and relative to the square of what is wanted.
/// They are taken on windows of the text that took no part in the steps (on all where there are
/// fewer than four).
struct LayerRefinement {
  int64_t layer = 0;
  double before = 0;      ///< once merged
  double after = 0;       ///< of what is kept: never more
  int steps = 0;          ///< that were made
  int kept = 0;           ///< after how many of them the layer is; 0: as it was merged
  bool diverged = false;  ///< the error was no longer finite
  /// Whether an earlier run that was stopped had written the layer (ExportOptions::resume). The
  /// figures are then that run's.
  bool taken_over = false;
};

/// A model whose layers were refined, beside the same one merged alone: mean KL(original || model),
/// nats per token, on windows of the text that took no part in the steps (on all where there are
/// fewer than four), at least 4096 tokens of them or all.
struct ModelRefinement {
  double merged = 0;
  double refined = 0;
  bool kept = true;  ///< else it is not refined at all: that made it worse
};

/// Groups that were tried for a layer, and by whom: "price" (what `similarity` finds by the cost of
/// merging), "neighbour" or "learned". The error is that of LayerRefinement, merged and refined on
/// what comes into the original's layer: its mean over windows held out.
struct GroupingTrial {
  std::string grouping;
  HeadGroups groups;
  double error = 0;
};

/// How grouping "learned" chose for one layer. Groupings are tried in order; each takes the place
/// of the best one so far if it is clearly better, by more than twice the standard error over
/// windows.
struct LayerGrouping {
  int64_t layer = 0;
  std::string chosen = {};  ///< GroupingTrial::grouping
  std::vector<GroupingTrial> tried = {};
};

/// Text that a conversion learns from, and how.
struct Calibration {
  std::filesystem::path text;  ///< plain text, UTF-8; empty: only what the model itself writes
  std::string sha256 = {};     ///< that the text must have; empty: any
  int64_t tokens = 32'768;     ///< taken from the text, from all over it
  /// Sampled from the model itself, in addition; none: `tokens`.
  std::optional<int64_t> sampled_tokens = {};
  int64_t window = 512;  ///< tokens that see each other, at most
  int steps = 600;       ///< gradient steps per layer after merging; 0: merging alone
  std::string isa = {};  ///< as in ContextOptions; threads are those of ExportOptions
  /// The folder of scratch files, for what is too large for memory; empty: TMPDIR. They have no
  /// names, and go with the program.
  std::filesystem::path scratch = {};
  /// Called for every layer that is refined, or that an earlier run which was stopped had refined,
  /// from the thread that called the library. May be empty. May throw.
  std::function<void(const LayerRefinement&)> refined = {};
  /// Called for the model once all its layers are refined, in the same way; may change what is
  /// kept. Not called where an earlier run that was stopped had given refining up.
  std::function<void(ModelRefinement&)> compared = {};

  int64_t sampled() const { return sampled_tokens.value_or(tokens); }
};

struct ConvertOptions {
  int64_t kv_heads = 0;  ///< of the result, in every layer; 0: as many as groups are given
  /// In place of kv_heads: the share of the source's KV heads that the result has at most (0 <
  /// budget <= 1). That is also its share of the KV bytes per token, in a cache of the same type.
  /// The heads go to the layers that lose the most without them.
  std::optional<double> budget = {};
  /// Numbers that the cache stores of each key and each value, in place of head_dim: even, and
  /// below it. Keys keep the rotary planes that matter most, values the directions. Then kv_heads
  /// may be 0: as many as the source has. For merge "pca", without a budget.
  std::optional<int64_t> kv_rank = {};
  std::string grouping =
      "similarity";  ///< or neighbour | random | kmeans | key-driven | manual:FILE | manual |
                     ///< learned, which needs a calibration
  std::string merge = "pca";  ///< or mean | first | random | medoid | aligned
  uint64_t seed = 0;          ///< of all that is random
  /// One per layer, for grouping "manual"; order is kept as it stands. Sizes count KV heads of the
  /// source. With a budget: what an earlier search found, so that there is none.
  std::vector<HeadGroups> explicit_groups = {};
  /// Whether groups may be of different sizes. Layers may differ in their number if they are given.
  bool unequal = false;
  std::optional<Calibration> calibration = {};
  ExportOptions output = {};
};

/// What a conversion will do, before it does it.
struct ConvertPlan {
  ModelConfig source;
  ModelConfig result;
  std::vector<HeadGroups> groups;  ///< one per layer; none where a dry run leaves them to the text
  std::optional<double> budget;    ///< of ConvertOptions
  std::vector<int64_t> planes;     ///< rotary planes of the source that keys keep; empty: all (or
                                   ///< as above)
  std::vector<LayerGrouping> learned;  ///< of grouping "learned": layers with more than one choice
  std::vector<std::string> notes;  ///< what a person should know, a line each: no tokenizer, ...
  int64_t output_bytes = 0;        ///< of the weights, headers aside
  int64_t peak_memory_bytes = 0;   ///< estimate: all of the program but pages of mapped files
  std::optional<double> seconds;   ///< estimate of a dry run with calibration, see count_work()
  int64_t source_kv_bytes_per_token = 0;
  int64_t result_kv_bytes_per_token = 0;
};

struct [[gnu::visibility("hidden")]] ExportJob;

/// A conversion that is planned and may be written; its source stays open.
class Conversion {
 public:
  explicit Conversion(std::unique_ptr<const ExportJob> job);  ///< of plan_convert(), plan_expand()
  ~Conversion();
  Conversion(Conversion&& other) noexcept;
  Conversion& operator=(Conversion&& other) noexcept;

  const ConvertPlan& plan() const;

  /// Throws what write() would throw before it writes, Error (cannot_create): out exists (without
  /// force), is inside the source or around it, its parent can't be written or lacks room.
  void check(const std::filesystem::path& out) const;

  /// `out` becomes a Hugging Face folder: config, weights, tokenizer files, recipe, model card.
  /// Where layers differ in KV heads, or groups are unequal, transformers runs it with the
  /// modelling code that lies in it (trust_remote_code), and refuses it without. It is written
  /// beside itself, synced and renamed last, so it is there whole or not at all. The same source
  /// and options give the same bytes. Throws Error: as check(), io where writing fails, bad_data
  /// for a weight that is not finite or does not fit the wanted dtype.
  void write(const std::filesystem::path& out, const Progress& progress = {}) const;

 private:
  std::unique_ptr<const ExportJob> job_;
};

/// As much of Conversion::check() as needs no plan, so that long planning is not for nothing.
/// Throws Error (cannot_create).
void check_output_place(const std::filesystem::path& source, const std::filesystem::path& out,
                        const ExportOptions& options);

/// Plans a grouped-query checkpoint of a multi-head (or wider grouped) one. KV heads of a group are
/// merged; query heads are permuted (Q rows, biases, O columns) so that groups are contiguous.
/// Reads and checks the source (config, headers, tokenizer) and the options; writes nothing. Throws
/// Error: usage for options that do not fit the model, bad_data or no_input for its files.
Conversion plan_convert(const std::filesystem::path& source, const ConvertOptions& options,
                        const Progress& progress = {});

/// Plans a multi-head checkpoint of a grouped one: each KV head is repeated for every query head of
/// its group. Exact. Throws as plan_convert().
Conversion plan_expand(const std::filesystem::path& source, const ExportOptions& options,
                       const Progress& progress = {});

/// Plans and writes in one call.
void convert(const std::filesystem::path& source, const std::filesystem::path& out,
             const ConvertOptions& options, const Progress& progress = {});
void expand(const std::filesystem::path& source, const std::filesystem::path& out,
            const ExportOptions& options, const Progress& progress = {});

/// Options as a recipe (gqa_recipe.json of an earlier convert()) records them, for the same source.
/// Groups that came from a file are in explicit_groups. Throws Error: no_input, or bad_data where
/// the recipe is not valid or the source's weights are not those of the recipe; usage where the
/// recipe was made with a calibration text and `calibration_text` does not say where it is.
ConvertOptions read_recipe(const std::filesystem::path& recipe, const std::filesystem::path& source,
                           const std::filesystem::path& calibration_text = {});

#pragma GCC visibility pop
}  // namespace gqa
