// What a model folder computes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "gqa/model.h"

namespace gqa::test {

/// Logits [tokens, vocab_size] of a sequence.
inline std::vector<float> logits(const Model& model, const std::vector<int32_t>& tokens) {
  Context context({.threads = 1});
  KvCache cache = model.make_cache(KvDType::f32);
  const Model::Step step{cache.create(), tokens};
  std::vector<float> hidden;
  model.forward(context, cache, std::span(&step, 1), hidden);
  std::vector<float> out(tokens.size() * static_cast<size_t>(model.config().vocab_size));
  model.logits(context, hidden, out);
  return out;
}

/// Of 31 tokens, the same for all models of a vocabulary.
inline std::vector<float> logits(const std::filesystem::path& folder) {
  const Model model = Model::load(folder);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < 31; ++i) {
    tokens.push_back(static_cast<int32_t>((i * i * 7 + 3 * i + 1) % model.config().vocab_size));
  }
  return logits(model, tokens);
}

/// Largest difference, relative to the largest logit of the first.
inline double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst / largest;
}

}  // namespace gqa::test
