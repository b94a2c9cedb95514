#include "convert/budget.h"

#include <algorithm>
#include <limits>

namespace gqa {
namespace {

constexpr double impossible = std::numeric_limits<double>::infinity();

double loss_of(const std::vector<HeadsOption>& options, int64_t kv_heads) {
  const auto option = std::ranges::find(options, kv_heads, &HeadsOption::kv_heads);
  return option == options.end() ? impossible : option->loss;
}

}  // namespace

std::vector<int64_t> cheapest_heads(const HeadsOptions& layers, int64_t budget) {
  if (budget < 0) return {};
  const auto sums = static_cast<size_t>(budget) + 1;
  // least[n]: of the layers so far, with exactly n heads; choice[l][n]: what layer l then has.
  std::vector<double> least(sums, impossible);
  least[0] = 0;
  std::vector<std::vector<int64_t>> choice(layers.size(), std::vector<int64_t>(sums, 0));
  for (size_t l = 0; l < layers.size(); ++l) {
    std::vector<double> next(sums, impossible);
    for (const HeadsOption& option : layers[l]) {
      const auto heads = static_cast<size_t>(option.kv_heads);
      for (size_t n = heads; n < sums; ++n) {
        const double loss = least[n - heads] + option.loss;
        if (!(loss < next[n])) continue;
        next[n] = loss;
        choice[l][n] = option.kv_heads;
      }
    }
    least = std::move(next);
  }
  const auto best = std::ranges::min_element(least);
  if (*best == impossible) return {};
  auto n = static_cast<size_t>(best - least.begin());
  std::vector<int64_t> kv_heads(layers.size());
  for (size_t l = layers.size(); l-- > 0;) {
    kv_heads[l] = choice[l][n];
    n -= static_cast<size_t>(kv_heads[l]);
  }
  return kv_heads;
}

std::vector<int64_t> uniform_heads(const HeadsOptions& layers, int64_t budget) {
  std::vector<int64_t> best;
  for (const HeadsOption& option : layers[0]) {
    const std::vector<int64_t> same(layers.size(), option.kv_heads);
    const bool fits = option.kv_heads * std::ssize(layers) <= budget;
    if (fits && total_loss(layers, same) != impossible) best = same;
  }
  return best;
}

double total_loss(const HeadsOptions& layers, const std::vector<int64_t>& kv_heads) {
  double sum = 0;
  for (size_t l = 0; l < layers.size(); ++l) sum += loss_of(layers[l], kv_heads[l]);
  return sum;
}

}  // namespace gqa
