#include "convert/stored_heads.h"

#include <vector>

#include "convert/elements.h"

namespace gqa {
namespace {

void round_to(DType dtype, Matrix& values) {
  const int64_t n = values.size();
  std::vector<float> decoded(static_cast<size_t>(n));
  std::vector<std::byte> stored(static_cast<size_t>(n * dtype_bytes(dtype)));
  encode_elements(values.data(), n, dtype, stored.data());
  decode_elements(stored.data(), dtype, n, decoded.data());
  for (int64_t i = 0; i < n; ++i) values.data()[i] = static_cast<double>(decoded[size_t(i)]);
}

}  // namespace

Heads as_stored(Heads heads, const AttentionTensors& source, std::optional<DType> dtype) {
  round_to(dtype.value_or(*source.q->dtype), heads.q);
  round_to(dtype.value_or(*source.k->dtype), heads.k);
  round_to(dtype.value_or(*source.v->dtype), heads.v);
  round_to(dtype.value_or(*source.o->dtype), heads.o);
  return heads;
}

}  // namespace gqa
