// Which conversion of a model is worth its bytes: many are made and measured.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "gqa/progress.h"

namespace gqa {
#pragma GCC visibility push(default)

struct TuneOptions {
  /// Plain text, UTF-8. The first nine tenths calibrate, the last tenth judges; the cut is after
  /// the end of a line where there is one.
  std::filesystem::path text;
  /// Numbers of KV heads and budgets to try (see ConvertOptions). Neither given: all divisors of
  /// the model's number, and the budgets 0.75, 0.5, 0.375 and 0.25 that leave every layer a head.
  std::vector<int64_t> kv_heads = {};
  std::vector<double> budgets = {};
  std::vector<std::string> groupings = {"similarity"};
  std::vector<std::string> merges = {"pca"};
  int steps = 0;  ///< of refinement; with some, the model's own text calibrates, too
  int64_t calibration_tokens = 4096;
  uint64_t seed = 0;
  /// Where candidates are written, one after the other, and results are kept, so that the next call
  /// goes on. Made where it is missing. Empty: a folder of the system's for temporary files.
  std::filesystem::path work = {};
  bool keep = false;     ///< candidates stay in `work`, which must be given
  int threads = 0;       ///< 0: default_threads()
  std::string isa = {};  ///< as in ContextOptions
};

struct TunePoint {
  std::string name;      ///< "kv4-similarity-pca"; "original"
  int64_t kv_heads = 0;  ///< in every layer; 0: by budget, or the original
  std::optional<double> budget = {};
  std::string grouping, merge;  ///< empty for the original
  std::vector<int64_t> layer_kv_heads;
  int64_t kv_bytes_per_token = 0;
  double ppl = 0;
  double kl = 0;  ///< mean KL(original || this), nats per token
  bool on_front = false;
};

struct TuneResult {
  std::vector<TunePoint> points;  ///< the original first, then most bytes first
  int64_t calibration_bytes = 0;  ///< of the text
  int64_t judged_tokens = 0;      ///< on which perplexity and KL are means
  int64_t reused = 0;             ///< points that an earlier call had measured
};

/// Converts a model in every way that the options name, and measures each result. Throws Error:
/// usage for options that do not fit the model, no_input and bad_data for its files, the text and
/// the state in `work`, cannot_create where another call works there; and what progress throws:
/// with `work`, what is measured by then is kept.
TuneResult tune(const std::filesystem::path& model, const TuneOptions& options,
                const Progress& progress = {});

/// Sets on_front where no other point has at most as many bytes and at most as high a perplexity,
/// with one of the two lower.
void mark_front(std::vector<TunePoint>& points);

/// The points as a picture: KV bytes per token across, perplexity (logarithmic) up, the front as a
/// line. For light and dark pages.
std::string tune_svg(const std::string& title, const TuneResult& result);

#pragma GCC visibility pop
}  // namespace gqa
