#include "convert/similarity.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "convert/elements.h"

namespace gqa {
namespace {

constexpr int64_t block = 1024;  ///< elements of each head at a time, so that all stay in cache
constexpr int64_t lanes = 16;    ///< independent sums, which the compiler can vectorise

double dot(const float* a, const float* b, int64_t n) {
  std::array<float, lanes> sums{};
  const int64_t whole = n / lanes * lanes;
  for (int64_t i = 0; i < whole; i += lanes) {
    for (int64_t l = 0; l < lanes; ++l) sums[l] += a[i + l] * b[i + l];
  }
  double total = 0;
  for (const float sum : sums) total += static_cast<double>(sum);
  for (int64_t i = whole; i < n; ++i) total += static_cast<double>(a[i] * b[i]);
  return total;
}

}  // namespace

std::vector<double> head_gram(const Tensor& tensor, int64_t heads) {
  const int64_t n = tensor.elements / heads;
  std::vector<float> values(heads * block);
  std::vector<double> gram(heads * heads);
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t count = std::min(block, n - begin);
    for (int64_t a = 0; a < heads; ++a) {
      decode_elements(tensor.data + (a * n + begin) * dtype_bytes(*tensor.dtype), *tensor.dtype,
                      count, values.data() + a * block);
      for (int64_t b = 0; b <= a; ++b) {
        gram[b * heads + a] += dot(values.data() + b * block, values.data() + a * block, count);
      }
    }
  }
  return gram;
}

double head_similarity(const Tensor& tensor, int64_t heads) {
  check_finite(tensor);
  if (heads < 2) return std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> gram = head_gram(tensor, heads);
  double total = 0;
  for (int64_t a = 0; a < heads; ++a) {
    for (int64_t b = a + 1; b < heads; ++b) {
      const double norms = std::sqrt(gram[a * heads + a]) * std::sqrt(gram[b * heads + b]);
      if (norms > 0) total += std::abs(gram[a * heads + b]) / norms;
    }
  }
  return total / (static_cast<double>(heads) * static_cast<double>(heads - 1) / 2);
}

}  // namespace gqa
