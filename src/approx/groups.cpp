#include "approx/groups.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace gqa {

void KeyMoments::add(const float* k, int64_t n, int64_t stride, int64_t dim) {
  sum_.resize(static_cast<size_t>(dim), 0.0);
  squares_.resize(static_cast<size_t>(dim), 0.0);
  for (int64_t s = 0; s < n; ++s) {
    for (int64_t d = 0; d < dim; ++d) {
      const double x = k[s * stride + d];
      sum_[static_cast<size_t>(d)] += x;
      squares_[static_cast<size_t>(d)] += x * x;
    }
  }
  count_ += n;
}

void KeyMoments::weights(float scale, std::span<float> weight) const {
  const auto n = static_cast<double>(count_);
  for (size_t d = 0; d < weight.size(); ++d) {
    const double mean = sum_[d] / n;
    const double variance = std::max(0.0, squares_[d] / n - mean * mean);
    weight[d] = scale * static_cast<float>(std::sqrt(variance));
  }
}

double Leaders::square(const float* x) const {
  double sum = 0;
  for (int64_t d = 0; d < dim_; ++d) sum += static_cast<double>(x[d]) * static_cast<double>(x[d]);
  return sum;
}

Leaders::Nearest Leaders::nearest(const kernels::Table& kernels, const float* x) {
  using kernels::key_block;
  alignas(64) std::array<float, key_block> dots;
  const double own = square(x);
  Nearest best;
  for (int64_t first = 0; first < count_; first += key_block) {
    const auto n = std::min(key_block, count_ - first);
    kernels.score(x, 1, dim_,
                  {blocks_.data() + first * dim_, KvDType::f32, WordOrder::rows(key_block)},
                  {0, static_cast<int32_t>(n)}, dots.data(), key_block, {});
    for (int64_t i = 0; i < n; ++i) {
      const double distance = own + squares_[static_cast<size_t>(first + i)] -
                              2.0 * static_cast<double>(dots[static_cast<size_t>(i)]);
      if (distance < best.distance) best = {first + i, std::max(0.0, distance)};
    }
  }
  return best;
}

int64_t Leaders::add(const float* x) {
  using kernels::key_block;
  if (count_ % key_block == 0) {
    blocks_.resize(static_cast<size_t>((count_ + key_block) * dim_), 0.0f);
  }
  float* block = blocks_.data() + count_ / key_block * key_block * dim_;
  for (int64_t d = 0; d < dim_; ++d) block[d * key_block + count_ % key_block] = x[d];
  squares_.push_back(square(x));
  return count_++;
}

int64_t Leaders::memory_bytes() const {
  return std::ssize(blocks_) * static_cast<int64_t>(sizeof(float));
}

}  // namespace gqa
