#include "convert/calibration_needs.h"

#include <fmt/format.h>

#include <algorithm>

#include "regroup/lumps.h"

namespace gqa {

int64_t calibration_memory(const ModelConfig& c, const CalibrationWindows& text) {
  const int64_t widest = std::max(c.width, c.q_heads * c.head_dim);
  const std::vector<int64_t>& begin = text.begin;
  int64_t pairs = 0;  // of the largest lump
  for (int64_t w = 0, end = 0; w + 1 < std::ssize(begin); w = end) {
    end = lump_end(begin, w);
    int64_t some = 0;
    for (int64_t i = w; i < end; ++i) {
      const int64_t n = std::ssize(text.windows[static_cast<size_t>(i)]);
      some += n * n;
    }
    pairs = std::max(pairs, some);
  }
  // Measured: the program with BLAS; rows of activations at a time; and, of the shape of a
  // projection in double, the layer before and after, and what refining keeps. Moments
  // of inputs come for every query head.
  constexpr int64_t program = int64_t{24} << 20;
  constexpr int64_t rows = 14;
  constexpr int64_t projections = 12;
  return program + 4 * c.q_heads * pairs + 4 * rows * text.tokens() * widest +
         8 * (c.q_heads + projections) * c.width * widest;
}

std::string few_tokens(const ModelConfig& c, int64_t tokens, int64_t kv_heads) {
  // Every token wants `width` numbers of a layer.
  constexpr int64_t wanted_per_weight = 4;
  const int64_t weights_per_width = 2 * (c.q_heads + kv_heads) * c.head_dim;
  const int64_t enough = wanted_per_weight * weights_per_width;
  if (tokens >= enough) return {};
  return fmt::format(
      "{} tokens are few for the {} weights of a layer that are refined: they may be followed too "
      "closely; {} would do (--calibrate-tokens, --sampled-tokens)",
      tokens, weights_per_width * c.width, enough);
}

}  // namespace gqa
