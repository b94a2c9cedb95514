#include "bench/drifting.h"

#include <cmath>

namespace gqa::bench {
namespace {

constexpr float kept = 0.97f;  ///< of the walk, from one token to the next
constexpr float noise_energy = 0.2f;
/// Energy falls to half at this dimension.
constexpr float leading_dims = 8;

/// Uniform, mean 0, variance 1.
float draw(Random& random) { return static_cast<float>((random.unit() - 0.5) * std::sqrt(12.0)); }

std::vector<float> scales(int64_t dim, Energy energy, float scale) {
  std::vector<float> result(static_cast<size_t>(dim), 1.0f);
  float sum = 0;
  for (int64_t d = 0; d < dim; ++d) {
    if (energy == Energy::leading) result[d] = 1 / (1 + static_cast<float>(d) / leading_dims);
    sum += result[d];
  }
  for (float& x : result) x = scale * std::sqrt(x * static_cast<float>(dim) / sum);
  return result;
}

}  // namespace

DriftingRows::DriftingRows(int64_t stream, int64_t heads, int64_t dim, Energy energy, float scale)
    : dim_(dim), scales_(scales(dim, energy, scale)) {
  for (int64_t h = 0; h < heads; ++h) {
    random_.emplace_back(static_cast<uint64_t>(stream), RandomUse::bench, h);
    for (int64_t d = 0; d < dim; ++d) walk_.push_back(draw(random_.back()));
  }
}

void DriftingRows::next(ThreadPool& pool, int64_t n, float* rows) {
  const float step = std::sqrt(1 - kept * kept);
  const float walk_share = std::sqrt(1 - noise_energy);
  const float noise_share = std::sqrt(noise_energy);
  const int64_t heads = std::ssize(random_);
  pool.parallel_for(heads, [&](int64_t h, int) {
    float* const walk = walk_.data() + h * dim_;
    for (int64_t t = 0; t < n; ++t) {
      float* const row = rows + (t * heads + h) * dim_;
      for (int64_t d = 0; d < dim_; ++d) {
        walk[d] = kept * walk[d] + step * draw(random_[h]);
        row[d] = scales_[d] * (walk_share * walk[d] + noise_share * draw(random_[h]));
      }
    }
  });
}

}  // namespace gqa::bench
