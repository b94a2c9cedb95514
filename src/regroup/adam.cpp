#include "regroup/adam.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace gqa {
namespace {

constexpr float decay_first = 0.9f, decay_second = 0.999f, epsilon = 1e-12f;
constexpr int warm_up = 10;  ///< steps until the rate is at its highest

using Values = Eigen::Map<Eigen::ArrayXf>;
using ConstValues = Eigen::Map<const Eigen::ArrayXf>;

}  // namespace

double root_mean_square(std::span<const float> part) {
  double sum = 0;
  for (const float x : part) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum / static_cast<double>(part.size()));
}

Adam::Adam(std::vector<float> scales, const std::vector<size_t>& sizes)
    : scales_(std::move(scales)) {
  for (const size_t size : sizes) {
    first_.emplace_back(size, 0.0f);
    second_.emplace_back(size, 0.0f);
  }
}

void Adam::step(const ConstParts& gradient, double rate, const Parts& weights) {
  ++steps_;
  const double of_first = 1 - std::pow(0.9, steps_);
  const double of_second = 1 - std::pow(0.999, steps_);
  const auto correction = static_cast<float>(std::sqrt(of_second) / of_first);
  for (size_t i = 0; i < weights.size(); ++i) {
    const ConstValues g(gradient[i].data(), std::ssize(gradient[i]));
    Values m(first_[i].data(), std::ssize(first_[i]));
    Values v(second_[i].data(), std::ssize(second_[i]));
    m = decay_first * m + (1 - decay_first) * g;
    v = decay_second * v + (1 - decay_second) * g.square();
    Values(weights[i].data(), std::ssize(weights[i])) -=
        static_cast<float>(rate) * scales_[i] * correction * m / (v.sqrt() + epsilon);
  }
}

double cosine_rate(double rate, int step, int steps) {
  const double turn = static_cast<double>(step) / steps;
  return rate * 0.5 * (1 + std::cos(std::numbers::pi * turn)) *
         std::min(1.0, (step + 1.0) / warm_up);
}

}  // namespace gqa
