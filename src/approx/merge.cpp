#include "approx/merge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/half.h"

namespace gqa {

void merge_rows(const PartialRow& a, const PartialRow& b, const AnyMutView<3>& out, int64_t t,
                int64_t h) {
  constexpr float none = -std::numeric_limits<float>::infinity();
  const float top = std::max(a.lse, b.lse);
  // A set without keys has nothing to give, whatever stands in its row.
  const float weight_a = a.lse == none ? 0.0f : std::exp(a.lse - top);
  const float weight_b = b.lse == none ? 0.0f : std::exp(b.lse - top);
  const float sum = weight_a + weight_b;
  const float share_a = sum == 0.0f ? 0.0f : weight_a / sum;
  const float share_b = sum == 0.0f ? 0.0f : weight_b / sum;
  const int64_t base = t * out.strides[0] + h * out.strides[1];
  for (int64_t d = 0; d < out.shape[2]; ++d) {
    const float of_a = weight_a == 0.0f ? 0.0f : share_a * a.out[d];
    const float of_b = weight_b == 0.0f ? 0.0f : share_b * b.out[d];
    store_element(out.data, out.dtype, base + d * out.strides[2], of_a + of_b);
  }
}

}  // namespace gqa
