// One layer's attention on some text, made up.
#pragma once

#include <random>
#include <utility>
#include <vector>

#include "regroup/block_attention.h"
#include "support/hidden_groups.h"

namespace gqa::test {

/// Windows of odd lengths, the longest over more than one piece of query rows.
inline CalibrationWindows some_windows(int32_t vocab, std::vector<int64_t> lengths) {
  CalibrationWindows text;
  int32_t next = 5;
  for (const int64_t n : lengths) {
    std::vector<int32_t> window{1};
    while (std::ssize(window) < n) {
      next = static_cast<int32_t>((int64_t{next} * 75 + 74) % 65537);
      window.push_back(next % vocab);
    }
    text.add(std::move(window));
  }
  return text;
}

inline ModelConfig block_config(int64_t head_dim, int64_t window) {
  ModelConfig config;
  config.head_dim = head_dim;
  config.window = window;
  return config;
}

/// A layer of random heads on windows of random inputs.
struct BlockCase {
  CalibrationWindows text;
  Heads heads;
  BlockShape shape;
  Rows inputs;

  BlockCase(uint64_t seed, int64_t mask_window, std::vector<int64_t> q_begin,
            std::vector<int64_t> lengths = {37, 1, 150})
      : text(some_windows(19, std::move(lengths))),
        shape(block_config(6, mask_window), text, q_begin) {
    std::mt19937_64 random(seed);
    heads = random_heads(random, std::ssize(q_begin) - 1, 1, 6, 11, 10);
    heads.q_begin = q_begin;
    heads.q = 0.3 * random_matrix(random, q_begin.back() * 6, 11);
    heads.o = random_matrix(random, 10, q_begin.back() * 6);
    inputs = random_matrix(random, text.tokens(), 11).cast<float>();
  }
};

}  // namespace gqa::test
