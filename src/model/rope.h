// Rotary position embedding.
#pragma once

#include <cstdint>
#include <vector>

#include "gqa/config.h"

namespace gqa {

/// A plane's frequency before any scaling: theta^(-2 plane / head_dim).
double plain_frequency(double theta, int64_t plane, int64_t head_dim);

/// Rotates heads by their position: plane i of a head, dimensions i and i + head_dim / 2, turns by
/// position * frequency(i) (Su et al. 2021; Hugging Face order of dimensions).
class Rope {
 public:
  /// Frequencies as the model was trained with them: scaled linearly (Chen et al. 2023), as Llama 3
  /// does, by YaRN (Peng et al. 2023), or plane by plane (LongRoPE, Ding et al. 2024: the short
  /// factors).
  Rope(const RopeConfig& config, int64_t head_dim);

  /// Cosines and sines [head_dim / 2] each for one position, scaled by the attention factor.
  void angles(int64_t position, float* cosines, float* sines) const;
  /// Rotates x [heads][head_dim] in place.
  static void rotate(float* x, int64_t heads, int64_t head_dim, const float* cosines,
                     const float* sines);

  const std::vector<float>& frequencies() const { return frequencies_; }
  double attention_factor() const { return attention_factor_; }

 private:
  std::vector<float> frequencies_;  ///< radians per position
  double attention_factor_ = 1.0;
};

/// The embedding of heads that have some planes of another's alone, as longrope: the planes' own
/// frequencies stand in its factors. `max_positions`: of the model.
RopeConfig rope_of_planes(const RopeConfig& config, int64_t head_dim,
                          const std::vector<int64_t>& planes, int64_t max_positions);

}  // namespace gqa
