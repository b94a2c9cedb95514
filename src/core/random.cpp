#include "core/random.h"

#include <cmath>
#include <limits>
#include <numbers>

namespace gqa {
namespace {

/// The output function of SplitMix64 (Steele et al. 2014): near seeds become far ones.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

}  // namespace

Random::Random(uint64_t seed, RandomUse use, int64_t layer)
    : engine_(mix(mix(mix(seed) + static_cast<uint64_t>(use)) + static_cast<uint64_t>(layer))) {}

uint64_t Random::below(uint64_t n) {
  // Draws from the last, incomplete multiple of n would favour small numbers.
  const uint64_t limit = std::numeric_limits<uint64_t>::max() / n * n;
  uint64_t x = engine_();
  while (x >= limit) x = engine_();
  return x % n;
}

double Random::unit() { return static_cast<double>((engine_() >> 11) + 1) * 0x1p-53; }

double Random::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2.0 * std::log(unit()));
  const double angle = 2.0 * std::numbers::pi * unit();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

}  // namespace gqa
