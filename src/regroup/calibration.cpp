#include "regroup/calibration.h"

#include <algorithm>
#include <utility>

#include "core/checked.h"
#include "core/fail.h"

namespace gqa {

void CalibrationWindows::add(std::vector<int32_t> window) {
  begin.push_back(begin.back() + std::ssize(window));
  windows.push_back(std::move(window));
}

int64_t CalibrationWindows::longest() const {
  int64_t longest = 0;
  for (const auto& window : windows) longest = std::max<int64_t>(longest, std::ssize(window));
  return longest;
}

CalibrationWindows cut_windows(const ModelConfig& config, const Tokenizer& tokenizer,
                               std::string_view text, const std::string& where, int64_t tokens,
                               int64_t window) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  const int64_t bos = config.bos_token_id ? 1 : 0;
  window = std::min(window, config.max_positions);
  const int64_t body = std::max<int64_t>(window - bos, 1);  // of the text itself
  const int64_t there = ceil_div(std::ssize(ids), body);
  const int64_t wanted = std::min(ceil_div(tokens, window), there);
  if (wanted == 0) {
    fail(ErrorKind::bad_data, "{}: the text has no tokens: nothing to calibrate with", where);
  }
  CalibrationWindows result;
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t from = i * there / wanted * body;
    const int64_t to = std::min<int64_t>(from + body, std::ssize(ids));
    std::vector<int32_t> cut;
    if (config.bos_token_id) cut.push_back(*config.bos_token_id);
    cut.insert(cut.end(), ids.begin() + from, ids.begin() + to);
    result.add(std::move(cut));
  }
  return result;
}

}  // namespace gqa
