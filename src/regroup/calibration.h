// Text that conversion learns from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "gqa/config.h"
#include "gqa/tokenizer.h"

namespace gqa {

/// Windows of tokens, one behind the other: rows of activations are in this order.
struct CalibrationWindows {
  std::vector<std::vector<int32_t>> windows;
  std::vector<int64_t> begin = {0};  ///< [windows + 1]: first row of each, and the end

  void add(std::vector<int32_t> window);

  int64_t tokens() const { return begin.back(); }
  int64_t longest() const;
};

/// `tokens` tokens of a text in windows of at most `window` (and the model's limit), each beginning
/// with BOS where the model has it, spread evenly over the text; all of a text that has fewer.
/// Throws Error (bad_data, naming `where`) for a text without tokens or invalid UTF-8.
CalibrationWindows cut_windows(const ModelConfig& config, const Tokenizer& tokenizer,
                               std::string_view text, const std::string& where, int64_t tokens,
                               int64_t window);

}  // namespace gqa
