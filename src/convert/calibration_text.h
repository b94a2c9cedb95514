// The tokens that a conversion learns from, as its options say.
#pragma once

#include <string>

#include "convert/source.h"
#include "gqa/context.h"
#include "gqa/convert.h"
#include "regroup/calibration.h"

namespace gqa {

struct CalibrationText {
  CalibrationWindows windows;
  std::string sha256;  ///< of the text's file; empty where there is none
};

/// Reads the text, if there is one, and lets the model write its own part. Throws Error: usage for
/// options out of range; no_input or bad_data for the text and the tokenizer.
CalibrationText calibration_text(Context& context, const SourceModel& source,
                                 const ConvertOptions& options, const Progress& progress);

/// The same without the model's own part: windows as long as can be, of any tokens, in place of it.
CalibrationText calibration_text_sizes(const SourceModel& source, const ConvertOptions& options);

}  // namespace gqa
