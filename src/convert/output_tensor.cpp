#include "convert/output_tensor.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <utility>

#include "convert/elements.h"
#include "core/fail.h"
#include "io/safetensors_dtype.h"

namespace gqa {
namespace {

[[noreturn]] void fail_to_fit(const OutputTensor& tensor, const std::vector<int64_t>& shape,
                              int64_t element, double value) {
  fail(ErrorKind::bad_data, "{}: tensor `{}`: expected values that {} can hold, got {} at {}",
       tensor.source->file->string(), tensor.name, dtype_name(tensor.dtype), value,
       position_text(element, shape));
}

/// Dimensions as heads see them: outer rows, each of which holds every head's run of elements.
struct HeadLayout {
  int64_t outer = 1;
  int64_t run = 1;
};

HeadLayout head_layout(const Tensor& tensor, const HeadGather& gather) {
  if (gather.axis == 0) return {1, tensor.elements / gather.from};
  return {tensor.shape[0], tensor.shape[1] / gather.from};
}

bool is_identity(const HeadGather& gather) {
  std::vector<int64_t> same(gather.from);
  std::iota(same.begin(), same.end(), 0);
  return gather.heads == same;
}

}  // namespace

int64_t OutputTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

TensorSpec OutputTensor::spec() const {
  return {name, std::string(safetensors_name(dtype)), shape, bytes()};
}

int64_t OutputTensor::converted_bytes() const {
  if (make) return bytes();
  return source->dtype == dtype ? 0 : source->elements * dtype_bytes(dtype);
}

OutputTensor copy_tensor(const Tensor& source, std::optional<DType> dtype) {
  OutputTensor tensor;
  tensor.name = source.name;
  tensor.dtype = dtype.value_or(*source.dtype);
  tensor.shape = source.shape;
  tensor.source = &source;
  return tensor;
}

OutputTensor gather_tensor(const Tensor& source, std::optional<DType> dtype, HeadGather gather) {
  OutputTensor tensor = copy_tensor(source, dtype);
  if (is_identity(gather)) return tensor;
  int64_t& extent = tensor.shape[gather.axis];
  extent = extent / gather.from * static_cast<int64_t>(gather.heads.size());
  tensor.gather = std::move(gather);
  return tensor;
}

std::span<const std::byte> TensorMaker::make(const OutputTensor& tensor) {
  if (tensor.make) return make_new(tensor);
  check_finite(*tensor.source);
  const std::span<const std::byte> data = convert(tensor);
  return tensor.gather ? gather(tensor, data.data()) : data;
}

std::span<const std::byte> TensorMaker::make_new(const OutputTensor& tensor) {
  const std::vector<double> values = tensor.make();
  auto* out = static_cast<std::byte*>(converted_.reserve(tensor.bytes()));
  const auto bad = encode_elements(values.data(), tensor.elements(), tensor.dtype, out);
  if (bad) fail_to_fit(tensor, tensor.shape, *bad, values[*bad]);
  return {out, static_cast<size_t>(tensor.bytes())};
}

/// The source in the wanted type.
std::span<const std::byte> TensorMaker::convert(const OutputTensor& tensor) {
  const Tensor& source = *tensor.source;
  if (source.dtype == tensor.dtype) return {source.data, static_cast<size_t>(source.bytes)};
  constexpr int64_t block = 4096;
  std::array<float, block> values;
  const int64_t bytes = tensor.converted_bytes();
  auto* out = static_cast<std::byte*>(converted_.reserve(bytes));
  for (int64_t begin = 0; begin < source.elements; begin += block) {
    const int64_t n = std::min(block, source.elements - begin);
    decode_elements(source.data + begin * dtype_bytes(*source.dtype), *source.dtype, n,
                    values.data());
    const auto bad =
        encode_elements(values.data(), n, tensor.dtype, out + begin * dtype_bytes(tensor.dtype));
    if (bad) fail_to_fit(tensor, source.shape, begin + *bad, static_cast<double>(values[*bad]));
  }
  return {out, static_cast<size_t>(bytes)};
}

std::span<const std::byte> TensorMaker::gather(const OutputTensor& tensor, const std::byte* data) {
  const HeadGather& gather = *tensor.gather;
  const HeadLayout layout = head_layout(*tensor.source, gather);
  const int64_t run = layout.run * dtype_bytes(tensor.dtype);
  auto* begin = static_cast<std::byte*>(gathered_.reserve(tensor.bytes()));
  std::byte* out = begin;
  for (int64_t row = 0; row < layout.outer; ++row) {
    for (const int64_t head : gather.heads) {
      std::memcpy(out, data + (row * gather.from + head) * run, run);
      out += run;
    }
  }
  return {begin, static_cast<size_t>(tensor.bytes())};
}

}  // namespace gqa
