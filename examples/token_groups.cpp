// Attention inside groups of tokens, in a size that fits the screen: 8 tokens in 2 groups of 4.
// Attention among all tokens is one 8 x 8 matrix of weights; inside the groups it is two 4 x 4
// ones, the blocks on its diagonal, and the rest is never computed. Built as
// `build/release/example_token_groups`.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <span>

#include "gqa/attention.h"
#include "gqa/error.h"

namespace {

constexpr int64_t n = 8, group = 4, head_dim = 2;

using Rows = std::array<std::array<float, head_dim>, n>;
using Matrix = std::array<std::array<float, n>, n>;

/// One head's queries and keys: directions in the plane, so that a score is how well two agree.
Rows directions(double first_angle, double step, double length) {
  Rows rows{};
  for (int64_t t = 0; t < n; ++t) {
    const double angle = first_angle + step * static_cast<double>(t);
    rows[t] = {static_cast<float>(length * std::cos(angle)),
               static_cast<float>(length * std::sin(angle))};
  }
  return rows;
}

/// Row t: the weights that query token t gives to the keys. Attention puts out the weighted sum of
/// the values; where the values are the rows of the identity matrix, that sum is the weights.
Matrix attend(gqa::Context& context, const Rows& q, const Rows& k, const gqa::Mask& mask) {
  Matrix identity{}, weights{};
  for (int64_t t = 0; t < n; ++t) identity[t][t] = 1;
  using gqa::DType;
  const gqa::AttendItem item{.q = {q.data(), DType::f32, {n, 1, head_dim}},
                             .kv = gqa::StridedKv{.k = {k.data(), DType::f32, {1, n, 1, head_dim}},
                                                  .v = {identity.data(), DType::f32, {1, n, 1, n}},
                                                  .pages = {},
                                                  .first_key = 0,
                                                  .len = n},
                             .out = {weights.data(), DType::f32, {n, 1, n}}};
  gqa::attend(context, std::span(&item, 1), {.mask = mask});
  return weights;
}

/// The same, as a textbook has it: all n * n scores, those that the mask hides set to nothing, then
/// softmax of each row.
Matrix attend_densely(const Rows& q, const Rows& k, const gqa::Mask& mask) {
  Matrix weights{};
  for (int64_t t = 0; t < n; ++t) {
    double sum = 0;
    for (int64_t s = 0; s < n; ++s) {
      const bool visible =
          (!mask.causal || s <= t) && (mask.block == 0 || s / mask.block == t / mask.block);
      const double score = (q[t][0] * k[s][0] + q[t][1] * k[s][1]) / std::sqrt(double{head_dim});
      weights[t][s] = visible ? static_cast<float>(std::exp(score)) : 0;
      sum += weights[t][s];
    }
    for (float& weight : weights[t]) weight /= static_cast<float>(sum);
  }
  return weights;
}

double largest_difference(const Matrix& a, const Matrix& b) {
  double largest = 0;
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t s = 0; s < n; ++s) {
      largest = std::max(largest, std::abs(double{a[t][s]} - double{b[t][s]}));
    }
  }
  return largest;
}

/// Scores that are needed: weights that are not 0.
int count_scores(const Matrix& weights) {
  int scores = 0;
  for (const auto& row : weights) {
    scores +=
        static_cast<int>(std::count_if(row.begin(), row.end(), [](float w) { return w > 0; }));
  }
  return scores;
}

/// Rows and columns [begin, end).
void print(const Matrix& weights, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    std::printf("  token %d:", static_cast<int>(t));
    for (int64_t s = begin; s < end; ++s) std::printf(" %.2f", static_cast<double>(weights[t][s]));
    std::printf("\n");
  }
}

/// Returns whether attend() is right.
bool show(gqa::Context& context, bool causal) {
  const Rows q = directions(0.3, 0.5, 1.4), k = directions(0, 0.9, 1.4);
  const Matrix all = attend(context, q, k, {.causal = causal});
  const Matrix grouped = attend(context, q, k, {.causal = causal, .block = group});
  std::printf("%s\n\nall tokens: one %d x %d matrix\n", causal ? "Causal" : "Not causal",
              static_cast<int>(n), static_cast<int>(n));
  print(all, 0, n);
  for (int64_t begin = 0; begin < n; begin += group) {
    std::printf("group of tokens %d to %d: a %d x %d matrix\n", static_cast<int>(begin),
                static_cast<int>(begin + group - 1), static_cast<int>(group),
                static_cast<int>(group));
    print(grouped, begin, begin + group);
  }
  const double difference = std::max(
      largest_difference(all, attend_densely(q, k, {.causal = causal})),
      largest_difference(grouped, attend_densely(q, k, {.causal = causal, .block = group})));
  const bool right = difference < 1e-6;
  std::printf("as the dense computation with the same mask: %s\n", right ? "yes" : "NO");
  std::printf("%d scores, in groups %d\n\n", count_scores(all), count_scores(grouped));
  return right;
}

}  // namespace

int main() {
  try {
    gqa::Context context({.threads = 1});
    const bool right = show(context, false);
    return show(context, true) && right ? 0 : 1;
  } catch (const gqa::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.exit_code();
  }
}
