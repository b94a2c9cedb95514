#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace gqa {
namespace {

constexpr double tau = 2.0 * std::numbers::pi;

/// Llama 3: planes that turn slowly over the original context are slowed by `factor`, fast ones are
/// kept, those between are interpolated.
double llama3_frequency(const RopeConfig& c, double frequency) {
  const double turns = static_cast<double>(c.original_positions) * frequency / tau;
  if (turns < c.low_freq_factor) return frequency / c.factor;
  if (turns > c.high_freq_factor) return frequency;
  const double smooth = (turns - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
  return (1.0 - smooth) * frequency / c.factor + smooth * frequency;
}

/// YaRN: the plane whose wave makes `turns` turns over the original context.
double yarn_plane(const RopeConfig& c, int64_t head_dim, double turns) {
  const auto positions = static_cast<double>(c.original_positions);
  return static_cast<double>(head_dim) * std::log(positions / (turns * tau)) /
         (2.0 * std::log(c.theta));
}

double yarn_frequency(const RopeConfig& c, int64_t head_dim, int64_t plane, double frequency) {
  double low = yarn_plane(c, head_dim, c.beta_fast);
  double high = yarn_plane(c, head_dim, c.beta_slow);
  if (c.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;  // as the original does, against division by zero
  const double slowed = std::clamp((static_cast<double>(plane) - low) / (high - low), 0.0, 1.0);
  return slowed * frequency / c.factor + (1.0 - slowed) * frequency;
}

}  // namespace

double plain_frequency(double theta, int64_t plane, int64_t head_dim) {
  return std::pow(theta, -2.0 * static_cast<double>(plane) / static_cast<double>(head_dim));
}

Rope::Rope(const RopeConfig& config, int64_t head_dim) {
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    double f = plain_frequency(config.theta, i, head_dim);
    switch (config.scaling) {
      case RopeConfig::Scaling::none:
        break;
      case RopeConfig::Scaling::linear:
        f /= config.factor;
        break;
      case RopeConfig::Scaling::llama3:
        f = llama3_frequency(config, f);
        break;
      case RopeConfig::Scaling::yarn:
        f = yarn_frequency(config, head_dim, i, f);
        break;
      case RopeConfig::Scaling::longrope:
        f /= config.short_factors[static_cast<size_t>(i)];
        break;
    }
    frequencies_.push_back(static_cast<float>(f));
  }
  if (config.scaling == RopeConfig::Scaling::yarn) {
    attention_factor_ = config.attention_factor.value_or(
        config.factor <= 1 ? 1.0 : 0.1 * std::log(config.factor) + 1.0);
  }
  if (config.scaling == RopeConfig::Scaling::longrope) {
    attention_factor_ = config.attention_factor.value_or(1.0);
  }
}

RopeConfig rope_of_planes(const RopeConfig& config, int64_t head_dim,
                          const std::vector<int64_t>& planes, int64_t max_positions) {
  const bool longrope = config.scaling == RopeConfig::Scaling::longrope;
  const int64_t n = std::ssize(planes);
  const auto factors = [&](const Rope& rope) {
    std::vector<double> result;
    for (int64_t i = 0; i < n; ++i) {
      const float f = rope.frequencies()[static_cast<size_t>(planes[static_cast<size_t>(i)])];
      result.push_back(plain_frequency(config.theta, i, 2 * n) / static_cast<double>(f));
    }
    return result;
  };
  RopeConfig result;
  result.theta = config.theta;
  result.scaling = RopeConfig::Scaling::longrope;
  result.original_positions = longrope ? config.original_positions : max_positions;
  const Rope rope(config, head_dim);
  result.attention_factor = rope.attention_factor();
  result.short_factors = factors(rope);
  RopeConfig for_long = config;
  for_long.short_factors = config.long_factors;
  result.long_factors = longrope ? factors(Rope(for_long, head_dim)) : result.short_factors;
  return result;
}

void Rope::angles(int64_t position, float* cosines, float* sines) const {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    // The product is rounded to f32 as in training; only then is the angle exact.
    const double angle = static_cast<float>(position) * frequencies_[i];
    cosines[i] = static_cast<float>(attention_factor_ * std::cos(angle));
    sines[i] = static_cast<float>(attention_factor_ * std::sin(angle));
  }
}

void Rope::rotate(float* x, int64_t heads, int64_t head_dim, const float* cosines,
                  const float* sines) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; ++h, x += head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i];
      const float b = x[i + half];
      x[i] = a * cosines[i] - b * sines[i];
      x[i + half] = b * cosines[i] + a * sines[i];
    }
  }
}

}  // namespace gqa
