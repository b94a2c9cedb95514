#include "model/log_probabilities.h"

#include <algorithm>
#include <cmath>

namespace gqa {

double log_sum_exp(std::span<const float> x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float v : x) sum += std::exp(v - max);
  return max + std::log(sum);
}

double kl_divergence(std::span<const float> original, double original_normaliser,
                     std::span<const float> other, double other_normaliser) {
  double kl = 0;
  for (size_t i = 0; i < original.size(); ++i) {
    const double log_p = original[i] - original_normaliser;
    kl += std::exp(log_p) * (log_p - (other[i] - other_normaliser));
  }
  return kl;
}

}  // namespace gqa
