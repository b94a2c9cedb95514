#include "convert/calibration_text.h"

#include <algorithm>
#include <vector>

#include "core/fail.h"
#include "core/text.h"
#include "gqa/generate.h"
#include "io/sha256.h"
#include "regroup/sampled_text.h"

namespace gqa {
namespace {

Tokenizer load_tokenizer(const SourceModel& source) {
  Tokenizer tokenizer = Tokenizer::load(source.dir / "tokenizer.json");
  check_vocabulary(source.config, tokenizer, source.dir);
  return tokenizer;
}

void check(const Calibration& calibration) {
  require(calibration.tokens >= 1, "calibration tokens: expected at least 1, got {}",
          calibration.tokens);
  require(calibration.sampled_tokens.value_or(0) >= 0,
          "sampled tokens: expected at least 0, got {}", calibration.sampled_tokens.value_or(0));
  require(calibration.window >= 2, "calibration window: expected at least 2, got {}",
          calibration.window);
  require(calibration.steps >= 0, "refinement steps: expected at least 0, got {}",
          calibration.steps);
  require(!calibration.text.empty() || calibration.sampled() > 0,
          "calibration without a text needs sampled tokens");
}

void read_text_part(const SourceModel& source, const Calibration& calibration,
                    CalibrationText& text) {
  text.sha256 = sha256_of_file(calibration.text);
  if (!calibration.sha256.empty() && calibration.sha256 != text.sha256) {
    fail(ErrorKind::bad_data, "{}: SHA-256 is {}, expected {}", calibration.text.string(),
         text.sha256, calibration.sha256);
  }
  text.windows = cut_windows(source.config, load_tokenizer(source), read_text(calibration.text),
                             calibration.text.string(), calibration.tokens, calibration.window);
}

void write_own_part(Context& context, const SourceModel& source, const ConvertOptions& options,
                    const Progress& progress, CalibrationWindows& text) {
  const Calibration& calibration = *options.calibration;
  const int64_t tokens = calibration.sampled();
  if (tokens == 0) return;
  const Model model = Model::load(source.dir, progress);
  const int64_t goal = text.tokens() + tokens;
  add_sampled_windows(context, model, tokens, calibration.window, options.seed, text, [&] {
    if (progress) progress("sample", text.tokens(), goal);
  });
}

}  // namespace

CalibrationText calibration_text(Context& context, const SourceModel& source,
                                 const ConvertOptions& options, const Progress& progress) {
  const Calibration& calibration = *options.calibration;
  check(calibration);
  CalibrationText text;
  if (!calibration.text.empty()) read_text_part(source, calibration, text);
  write_own_part(context, source, options, progress, text.windows);
  return text;
}

CalibrationText calibration_text_sizes(const SourceModel& source, const ConvertOptions& options) {
  const Calibration& calibration = *options.calibration;
  check(calibration);
  CalibrationText text;
  if (!calibration.text.empty()) read_text_part(source, calibration, text);
  const int64_t longest = std::min(calibration.window, source.config.max_positions);
  for (int64_t left = calibration.sampled(); left > 0; left -= longest) {
    text.windows.add(std::vector<int32_t>(static_cast<size_t>(std::min(left, longest))));
  }
  return text;
}

}  // namespace gqa
