#include "convert/calibration_needs.h"

#include <fmt/format.h>

#include <algorithm>

#include "convert/source.h"
#include "core/checked.h"
#include "regroup/divergence.h"
#include "regroup/lumps.h"
#include "regroup/sampled_text.h"
#include "regroup/stream.h"

namespace gqa {
namespace {

/// Sizes that memory follows from; elements, not bytes.
struct Sizes {
  int64_t inputs, width, q, mlp;  ///< of one row
  int64_t kv, merged_kv;          ///< keys of one row, before and after
  int64_t q_heads, longest;       ///< of windows
  int64_t lump_rows, lump_pairs;  ///< of the largest lump

  Sizes(const ModelConfig& c, const CalibrationWindows& text, int64_t kv_heads)
      : inputs(c.width + (c.attention_bias ? 1 : 0)),
        width(c.width),
        q(c.q_heads * c.head_dim),
        mlp(c.mlp_width),
        kv(std::ranges::max(c.kv_heads) * c.head_dim),
        merged_kv(std::min(kv, kv_heads * c.head_dim)),
        q_heads(c.q_heads),
        longest(text.longest()),
        lump_rows(0),
        lump_pairs(0) {
    for (int64_t w = 0, end = 0; w + 1 < std::ssize(text.begin); w = end) {
      end = lump_end(text.begin, w);
      int64_t rows = 0, pairs = 0;
      for (int64_t i = w; i < end; ++i) {
        const int64_t n = std::ssize(text.windows[static_cast<size_t>(i)]);
        rows += n;
        pairs += n * n;
      }
      lump_rows = std::max(lump_rows, rows);
      lump_pairs = std::max(lump_pairs, pairs);
    }
  }

  int64_t layer() const { return (inputs + width) * q + 2 * inputs * kv; }
  int64_t merged_layer() const { return (inputs + width) * q + 2 * inputs * merged_kv; }
};

constexpr int64_t f32 = sizeof(float);
constexpr int64_t f64 = sizeof(double);

/// A layer with these keys on a lump, its weights in f32 included.
int64_t lump_memory(const Sizes& s, int64_t kv, int64_t weights) {
  return f32 * (s.lump_rows * (s.inputs + 2 * s.q + 2 * kv + s.width) + s.q_heads * s.lump_pairs +
                weights + s.width * s.q);
}

/// What grouping and merging look at: the layer, what its inputs and values are like, then the
/// layer merged, or moments of one head on the way.
int64_t study_memory(const Sizes& s) {
  const int64_t moments = s.inputs * s.inputs;
  const int64_t head = f64 * moments + f32 * 2 * s.lump_rows * s.inputs;
  const int64_t closed_form = f64 * (s.kv * s.kv + s.merged_layer() + moments + s.inputs * s.kv);
  const int64_t grams = f64 * (moments + s.inputs * s.q + s.kv * s.kv);
  return f64 * s.layer() + std::max({lump_memory(s, s.kv, s.layer()), head + closed_form, grams});
}

/// The merged layer, and the system of equations for its outputs, as it is and as it is solved with
/// some pull, between where outputs began and where they end; or one lump.
int64_t refit_memory(const Sizes& s) {
  return f64 * s.merged_layer() + std::max(lump_memory(s, s.merged_kv, s.merged_layer()),
                                           f64 * s.q * (2 * s.q + 4 * s.width));
}

/// The merged layer; its weights, the best so far and two means of the gradient; the MLP behind it;
/// what two windows make of all these; and a gradient through the MLP or of the layer, or at last
/// the result.
int64_t refine_memory(const Sizes& s) {
  const int64_t rows = std::min<int64_t>(2 * s.longest, s.lump_rows);
  const int64_t block = 2 * s.width * s.q + s.q_heads * rows * s.longest +
                        rows * (s.inputs + 2 * s.width + 2 * s.q + 2 * s.merged_kv);
  const int64_t mlp = 3 * s.width * s.mlp + rows * (2 * s.mlp + 4 * s.width);
  const int64_t through = s.width * s.mlp + rows * (2 * s.mlp + 3 * s.width);
  const int64_t step = s.merged_layer() + rows * (4 * s.q + 2 * s.merged_kv);
  const int64_t result = 2 * s.merged_layer();  // in double
  return f64 * s.merged_layer() +
         f32 * (4 * s.merged_layer() + block + mlp + std::max({through, step, result}));
}

/// Groups are refined beside what merging them looks at: the layer, and moments of its inputs and
/// of its values.
int64_t trial_memory(const Sizes& s, bool fits) {
  return f64 * (s.layer() + s.inputs * s.inputs + s.kv * s.kv) +
         (fits ? std::max(refit_memory(s), refine_memory(s)) : 0);
}

/// The layer as it is written beside what it is rounded from, on a lump.
int64_t pass_memory(const Sizes& s) {
  return 2 * f64 * s.merged_layer() + lump_memory(s, s.merged_kv, s.merged_layer());
}

}  // namespace

int64_t calibration_memory(const ModelConfig& c, const CalibrationWindows& text,
                           const ConvertOptions& options) {
  const int64_t all = std::ranges::max(c.kv_heads);
  const Sizes s(c, text, options.kv_heads > 0 ? options.kv_heads : all);
  const bool fits = options.calibration->steps > 0;
  const int64_t mlp = f32 * Stream::rows_at_a_time * (2 * c.mlp_width + c.width);
  const int64_t layer = std::max({study_memory(s), pass_memory(s), fits ? refit_memory(s) : 0,
                                  fits ? refine_memory(s) : 0, fits ? divergence_memory(c) : 0,
                                  options.grouping == "learned" ? trial_memory(s, fits) : 0, mlp});
  // Measured: the program with BLAS, and what sampling and refining leave in the heap.
  const int64_t heap = (options.calibration->sampled() > 0 ? 8 : 0) + (fits ? 6 : 0);
  const int64_t program = (18 + heap) << 20;
  constexpr int64_t arrays = 9;  // as long as the text, where they are short enough for memory
  const int64_t rows = f32 * text.tokens() * s.inputs;
  const int64_t in_memory = rows > ScratchPlace().in_memory_bytes ? 0 : arrays * rows;
  const int64_t cache = sampling_memory(c, *options.calibration);
  return program + std::max(cache, in_memory + layer);
}

int64_t sampling_memory(const ModelConfig& c, const Calibration& calibration) {
  if (calibration.sampled() == 0) return 0;
  const int64_t window = std::min(calibration.window, c.max_positions);
  const int64_t windows =
      std::min(sampled_at_a_time(c, window), ceil_div(calibration.sampled(), window));
  return windows * window * kv_bytes_per_token(c, DType::f32);
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
