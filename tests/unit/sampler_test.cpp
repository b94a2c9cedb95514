#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "gqa/error.h"
#include "gqa/generate.h"

namespace gqa {
namespace {

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 1.5f, 1.0f, -3.0f};

/// How often each id comes in n draws.
std::map<int32_t, int> draws(const SamplingOptions& options, int n,
                             std::vector<int32_t> seen = {}) {
  Sampler sampler(options);
  std::map<int32_t, int> counts;
  for (int i = 0; i < n; ++i) {
    auto logits = kLogits;
    ++counts[sampler.next(logits, seen)];
  }
  return counts;
}

TEST(Sampler, GreedyTakesTheLargest) {
  EXPECT_EQ(draws({}, 10), (std::map<int32_t, int>{{1, 10}}));
  EXPECT_EQ(draws({.temperature = 2.0f, .top_k = 1}, 50), (std::map<int32_t, int>{{1, 50}}));
  EXPECT_EQ(draws({.temperature = 2.0f, .top_p = 0.01f}, 50), (std::map<int32_t, int>{{1, 50}}));
}

TEST(Sampler, FrequenciesFollowTheTemperedSoftmax) {
  const int n = 60000;
  for (const float temperature : {0.5f, 1.0f, 3.0f}) {
    const auto counts = draws({.temperature = temperature, .seed = 5}, n);
    double sum = 0;
    for (const float x : kLogits) sum += std::exp(x / temperature);
    for (size_t i = 0; i < kLogits.size(); ++i) {
      const double p = std::exp(kLogits[i] / temperature) / sum;
      const auto found = counts.find(static_cast<int32_t>(i));
      const double share = found == counts.end() ? 0 : static_cast<double>(found->second) / n;
      EXPECT_NEAR(share, p, 5 * std::sqrt(p * (1 - p) / n)) << i << " at " << temperature;
    }
  }
}

TEST(Sampler, TopKAndTopPKeepTheLikeliest) {
  const auto ids = [](const auto& counts) {
    std::vector<int32_t> list;
    for (const auto& [id, n] : counts) list.push_back(id);
    return list;
  };
  EXPECT_EQ(ids(draws({.temperature = 5.0f, .top_k = 3}, 2000)), (std::vector<int32_t>{1, 3, 4}));
  // Shares at temperature 1: 0.446, 0.271, 0.164, 0.099, ...: 0.7 is reached by the second.
  EXPECT_EQ(ids(draws({.temperature = 1.0f, .top_p = 0.70f}, 2000)), (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(ids(draws({.temperature = 1.0f, .top_p = 0.73f}, 2000)),
            (std::vector<int32_t>{1, 3, 4}));
  EXPECT_EQ(ids(draws({.temperature = 9.0f, .top_k = 99}, 5000)).size(), kLogits.size());
}

TEST(Sampler, RepetitionPenaltyActsOncePerIdOnEitherSign) {
  Sampler sampler({.repetition_penalty = 2.0f});
  auto logits = kLogits;
  const std::vector<int32_t> seen = {1, 1, 5, 1};
  EXPECT_EQ(sampler.next(logits, seen), 3);
  EXPECT_EQ(logits[1], 1.0f);
  EXPECT_EQ(logits[5], -6.0f);
  EXPECT_EQ(logits[0], 0.5f);
}

TEST(Sampler, TheSeedDecides) {
  const auto sequence = [](uint64_t seed) {
    Sampler sampler({.temperature = 2.0f, .seed = seed});
    std::vector<int32_t> ids;
    for (int i = 0; i < 30; ++i) {
      auto logits = kLogits;
      ids.push_back(sampler.next(logits, {}));
    }
    return ids;
  };
  EXPECT_EQ(sequence(1), sequence(1));
  EXPECT_NE(sequence(1), sequence(2));
}

TEST(Sampler, RefusesOptionsOutOfRangeAndLogitsThatAreNotFinite) {
  for (const SamplingOptions& bad :
       {SamplingOptions{.temperature = -1.0f}, SamplingOptions{.temperature = NAN},
        SamplingOptions{.top_k = -1}, SamplingOptions{.top_p = 0.0f},
        SamplingOptions{.top_p = 1.1f}, SamplingOptions{.repetition_penalty = 0.0f}}) {
    EXPECT_THROW(Sampler{bad}, Error);
  }
  Sampler sampler({});
  std::vector<float> logits = {0.0f, NAN};
  EXPECT_THROW(sampler.next(logits, {}), Error);
}

}  // namespace
}  // namespace gqa
