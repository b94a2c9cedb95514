#include "convert/stored_heads.h"

#include <vector>

#include "convert/elements.h"

namespace gqa {
namespace {

Matrix rounded(DType dtype, const Eigen::Ref<const Matrix>& exact) {
  Matrix values = exact;  // dense
  const int64_t n = values.size();
  std::vector<float> decoded(static_cast<size_t>(n));
  std::vector<std::byte> stored(static_cast<size_t>(n * dtype_bytes(dtype)));
  encode_elements(values.data(), n, dtype, stored.data());
  decode_elements(stored.data(), dtype, n, decoded.data());
  for (int64_t i = 0; i < n; ++i) values.data()[i] = static_cast<double>(decoded[size_t(i)]);
  return values;
}

/// `bias`: of the last column; null where it is no bias.
void round_to(std::optional<DType> dtype, const Tensor& weight, const Tensor* bias,
              Matrix& values) {
  const int64_t inputs = values.cols() - (bias != nullptr ? 1 : 0);
  values.leftCols(inputs) = rounded(dtype.value_or(*weight.dtype), values.leftCols(inputs));
  if (bias == nullptr) return;
  values.rightCols(1) = rounded(dtype.value_or(*bias->dtype), values.rightCols(1));
}

}  // namespace

Heads as_stored(Heads heads, const AttentionTensors& source, std::optional<DType> dtype) {
  round_to(dtype, *source.q, source.q_bias, heads.q);
  round_to(dtype, *source.k, source.k_bias, heads.k);
  round_to(dtype, *source.v, source.v_bias, heads.v);
  round_to(dtype, *source.o, nullptr, heads.o);
  return heads;
}

}  // namespace gqa
