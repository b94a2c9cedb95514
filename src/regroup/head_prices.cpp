#include "regroup/head_prices.h"

#include "regroup/keys.h"
#include "regroup/values.h"

namespace gqa {

HeadPrices::HeadPrices(const HeadGrams& grams) : grams_(grams) {
  for (int64_t g = 0; g < grams.kv_heads(); ++g) {
    scores_ += key_loss(grams, {g}).total;
    outputs_ += value_loss(grams, {g}).total;
  }
}

double HeadPrices::operator()(const std::vector<int64_t>& group) const {
  const auto share = [](double lost, double total) { return total > 0 ? lost / total : 0.0; };
  return share(key_loss(grams_, group).lost, scores_) +
         share(value_loss(grams_, group).lost, outputs_);
}

PairPrices::PairPrices(const HeadGrams& grams, ThreadPool& pool)
    : pairs_(Matrix::Zero(grams.kv_heads(), grams.kv_heads())) {
  const HeadPrices prices(grams);
  pool.parallel_for(pairs_.rows(), [&](int64_t a, int) {
    for (int64_t b = a + 1; b < pairs_.rows(); ++b) pairs_(a, b) = prices({a, b});
  });
}

double PairPrices::operator()(const std::vector<int64_t>& group) const {
  double sum = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    for (size_t j = i + 1; j < group.size(); ++j) {
      sum += pairs_(std::min(group[i], group[j]), std::max(group[i], group[j]));
    }
  }
  return 2.0 * sum / static_cast<double>(group.size());
}

}  // namespace gqa
