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
  const std::string file = tensor.source == nullptr ? "" : tensor.source->file->string() + ": ";
  fail(ErrorKind::bad_data, "{}tensor `{}`: expected values that {} can hold, got {} at {}", file,
       tensor.name, dtype_name(tensor.dtype), value, position_text(element, shape));
}

/// Elements of a head that lie one after the other: all of it, or those of a row.
int64_t head_run(const Tensor& tensor, const HeadGather& gather) {
  return (gather.axis == 0 ? tensor.elements : tensor.shape[1]) / gather.from;
}

/// Whether its bytes are those of the source.
bool is_as_stored(const OutputTensor& tensor) {
  return !tensor.make && !tensor.gather && tensor.source->dtype == tensor.dtype;
}

/// Stores the source's elements [first, first + n), checked, in the tensor's type.
void store_range(const OutputTensor& tensor, int64_t first, int64_t n, std::byte* out) {
  const Tensor& source = *tensor.source;
  const int64_t from_bytes = dtype_bytes(*source.dtype), to_bytes = dtype_bytes(tensor.dtype);
  check_finite(source, first, first + n);
  if (source.dtype == tensor.dtype) {
    std::memcpy(out, source.data + first * from_bytes, n * to_bytes);
    return;
  }
  constexpr int64_t block = 4096;
  std::array<float, block> values;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t count = std::min(block, n - begin);
    decode_elements(source.data + (first + begin) * from_bytes, *source.dtype, count,
                    values.data());
    const auto bad = encode_elements(values.data(), count, tensor.dtype, out + begin * to_bytes);
    if (!bad) continue;
    fail_to_fit(tensor, source.shape, first + begin + *bad, static_cast<double>(values[*bad]));
  }
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
  return {name, std::string(safetensors_name(dtype)), shape, bytes(), note};
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

void PieceMaker::skip_finished() {
  while (!tensors_.empty() && at_ == tensors_.front().elements()) {
    tensors_ = tensors_.subspan(1);
    at_ = 0;
    made_ = std::vector<double>();  // gives the memory back, as `= {}` would not
  }
}

void PieceMaker::prepare(const Progress& progress) {
  skip_finished();
  if (tensors_.empty() || at_ > 0 || !tensors_.front().make) return;
  made_ = tensors_.front().make(progress);
}

std::span<const std::byte> PieceMaker::next() {
  skip_finished();
  if (tensors_.empty()) return {};
  const OutputTensor& tensor = tensors_.front();
  const int64_t element_bytes = dtype_bytes(tensor.dtype);
  const int64_t n = std::min(piece_bytes / element_bytes, tensor.elements() - at_);
  const size_t bytes = static_cast<size_t>(n * element_bytes);
  const std::byte* data = nullptr;
  if (is_as_stored(tensor)) {
    check_finite(*tensor.source, at_, at_ + n);
    data = tensor.source->data + at_ * element_bytes;
  } else {
    turn_ = 1 - turn_;
    auto* out = static_cast<std::byte*>(buffers_[turn_].reserve(piece_bytes));
    fill(tensor, n, out);
    data = out;
  }
  at_ += n;
  return {data, bytes};
}

/// The next n elements.
void PieceMaker::fill(const OutputTensor& tensor, int64_t n, std::byte* out) {
  if (tensor.gather) return gather(tensor, n, out);
  if (!tensor.make) return store_range(tensor, at_, n, out);
  const auto bad = encode_elements(made_.data() + at_, n, tensor.dtype, out);
  if (bad) fail_to_fit(tensor, tensor.shape, at_ + *bad, made_[at_ + *bad]);
}

void PieceMaker::gather(const OutputTensor& tensor, int64_t n, std::byte* out) {
  const HeadGather& gather = *tensor.gather;
  const int64_t run = head_run(*tensor.source, gather);
  const int64_t heads = std::ssize(gather.heads);
  for (int64_t at = at_, end = at_ + n; at < end;) {
    const int64_t row = at / run / heads, head = gather.heads[at / run % heads], offset = at % run;
    const int64_t count = std::min(run - offset, end - at);
    store_range(tensor, (row * gather.from + head) * run + offset, count, out);
    out += count * dtype_bytes(tensor.dtype);
    at += count;
  }
}

}  // namespace gqa
