#include <algorithm>
#include <bit>
#include <cstring>

#include "core/fail.h"
#include "core/half.h"
#include "io/checkpoint.h"

namespace gqa {
namespace {

constexpr int64_t block = 8192;  // elements; stays in the first-level cache for the second look

/// NaN and infinity are the values whose exponent bits are all ones. No early exit, so that the
/// loop vectorises.
template <typename Bits>
bool all_finite(const std::byte* data, int64_t n, Bits exponent) {
  Bits found = 0;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, data + i * static_cast<int64_t>(sizeof bits), sizeof bits);  // unaligned
    found |= static_cast<Bits>((bits & exponent) == exponent);
  }
  return found == 0;
}

bool all_finite(const std::byte* data, DType t, int64_t n) {
  switch (t) {
    case DType::f32:
      return all_finite<uint32_t>(data, n, 0x7f800000u);
    case DType::f16:
      return all_finite<uint16_t>(data, n, 0x7c00u);
    case DType::bf16:
      return all_finite<uint16_t>(data, n, 0x7f80u);
  }
  return false;
}

}  // namespace

std::string position_text(int64_t element, const std::vector<int64_t>& shape) {
  std::vector<int64_t> index(shape.size());
  for (size_t i = shape.size(); i-- > 0;) {
    index[i] = element % shape[i];
    element /= shape[i];
  }
  return shape_text(index);
}

void check_finite(const Tensor& tensor) { check_finite(tensor, 0, tensor.elements); }

void check_finite(const Tensor& tensor, int64_t begin, int64_t end) {
  if (!tensor.dtype) return;
  const int64_t element_bytes = dtype_bytes(*tensor.dtype);
  for (int64_t first = begin; first < end; first += block) {
    const int64_t n = std::min(block, end - first);
    if (all_finite(tensor.data + first * element_bytes, *tensor.dtype, n)) continue;
    int64_t at = first;
    while (all_finite(tensor.data + at * element_bytes, *tensor.dtype, 1)) ++at;
    fail(ErrorKind::bad_data, "{}: tensor `{}`: expected finite values, got {} at {}",
         tensor.file->string(), tensor.name, load_element(tensor.data, *tensor.dtype, at),
         position_text(at, tensor.shape));
  }
}

}  // namespace gqa
