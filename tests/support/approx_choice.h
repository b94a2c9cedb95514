// What tokens have chosen, and what they should have.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "support/approx_case.h"

namespace gqa::test {

inline const std::vector<Heads> choosing_heads{{4, 2, {}}, {6, 3, {0, 1, 4, 6}}};

/// Queries small enough for no weight to vanish; values that tell who was seen.
inline void make_telling(Tokens& x) {
  for (float& value : x.q) value *= 0.3f;
  make_one_hot(x);
}

/// Of candidates, how much each head of a group wants each, less what it wants most: the largest
/// over heads. wants [head][candidate].
inline std::vector<double> wanted(const std::vector<std::vector<double>>& wants) {
  std::vector<double> result(wants[0].size(), -INFINITY);
  for (const auto& row : wants) {
    const double top = *std::max_element(row.begin(), row.end());
    for (size_t i = 0; i < row.size(); ++i) result[i] = std::max(result[i], row[i] - top);
  }
  return result;
}

/// That nothing chosen is below anything that was not, by more than `slack`. Says whether the
/// choice could be told from any other.
inline bool is_best(const std::vector<double>& value, const std::vector<bool>& chosen,
                    double slack) {
  double lowest = INFINITY, best_left = -INFINITY;
  for (size_t i = 0; i < value.size(); ++i) {
    (chosen[i] ? lowest : best_left) =
        chosen[i] ? std::min(lowest, value[i]) : std::max(best_left, value[i]);
  }
  EXPECT_GE(lowest, best_left - slack);
  return lowest > best_left + slack;
}

/// Calls f(t, g, heads of g, keys seen) for all tokens and KV heads.
template <typename F>
void for_rows(const Tokens& x, const Heads& heads, const std::vector<float>& out, const F& f) {
  const auto seen = seen_keys(x, heads, out);
  const auto kv_head = kv_head_of(heads);
  for (int64_t t = 0; t < x.n && !::testing::Test::HasFailure(); ++t) {
    for (int64_t g = 0; g < x.kv_heads; ++g) {
      std::vector<int64_t> members;
      for (int64_t h = 0; h < x.q_heads; ++h) {
        if (kv_head[static_cast<size_t>(h)] == g) members.push_back(h);
      }
      SCOPED_TRACE("token " + std::to_string(t) + ", KV head " + std::to_string(g));
      f(t, g, members, seen[static_cast<size_t>(t * x.kv_heads + g)]);
    }
  }
}

}  // namespace gqa::test
