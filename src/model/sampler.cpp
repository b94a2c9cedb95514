#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/fail.h"
#include "gqa/generate.h"

namespace gqa {
namespace {

/// Uniform in [0, 1), the same on every platform.
double uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

/// Divides positive logits of ids seen by the penalty and multiplies negative ones, each id once:
/// `ids` becomes these.
void penalise(std::span<float> logits, std::span<const int32_t> seen, float penalty,
              std::vector<int32_t>& ids) {
  // Room for as many again: else every token would make it grow.
  if (ids.capacity() < seen.size()) ids.reserve(2 * seen.size());
  ids.assign(seen.begin(), seen.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const int32_t id : ids) {
    float& x = logits[static_cast<size_t>(id)];
    x = x > 0 ? x / penalty : x * penalty;
  }
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  const auto finite_at_least = [](float x, float low) { return std::isfinite(x) && x >= low; };
  require(finite_at_least(options.temperature, 0), "temperature is {}, expected 0 or more",
          options.temperature);
  require(options.top_k >= 0, "top-k is {}, expected 0 (all) or more", options.top_k);
  require(options.top_p > 0 && options.top_p <= 1, "top-p is {}, expected above 0, at most 1",
          options.top_p);
  require(std::isfinite(options.repetition_penalty) && options.repetition_penalty > 0,
          "repetition penalty is {}, expected above 0", options.repetition_penalty);
}

int32_t Sampler::next(std::span<float> logits, std::span<const int32_t> seen) {
  if (options_.repetition_penalty != 1.0f) {
    penalise(logits, seen, options_.repetition_penalty, penalised_);
  }
  const auto best = std::max_element(logits.begin(), logits.end());
  if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) {
    fail(ErrorKind::bad_data, "the model's logits are not finite");
  }
  if (options_.temperature == 0.0f) return static_cast<int32_t>(best - logits.begin());

  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  size_t kept = order_.size();
  if (options_.top_k > 0) kept = std::min(kept, static_cast<size_t>(options_.top_k));
  // Ties in the order of ids, so that a draw is reproducible.
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::partial_sort(order_.begin(), order_.begin() + static_cast<int64_t>(kept), order_.end(),
                    likelier);
  order_.resize(kept);

  const double top = *best;
  weight_.resize(kept);
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    const double x = logits[static_cast<size_t>(order_[i])];
    weight_[i] = std::exp((x - top) / options_.temperature);
    sum += weight_[i];
  }
  if (options_.top_p < 1.0f) {  // the shortest prefix whose share reaches top_p
    double share = 0;
    size_t n = 0;
    while (n < kept && share < options_.top_p * sum) share += weight_[n++];
    kept = n;
    sum = share;
  }
  double draw = uniform(random_) * sum;
  for (size_t i = 0; i + 1 < kept; ++i) {
    if (draw < weight_[i]) return order_[i];
    draw -= weight_[i];
  }
  return order_[kept - 1];
}

}  // namespace gqa
