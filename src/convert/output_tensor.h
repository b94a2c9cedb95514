// What becomes of each tensor on its way out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/aligned_buffer.h"
#include "io/checkpoint.h"
#include "io/safetensors_writer.h"

namespace gqa {

/// Heads of a tensor, picked and put in a new order: head i of the result is head heads[i].
struct HeadGather {
  std::vector<int64_t> heads;
  int64_t from = 0;  ///< heads that the tensor has
  int axis = 0;      ///< that the heads lie along: 0 for rows (q, k, v, biases), 1 for columns (o)
};

/// A tensor of the output: the source's, in another order and type, or new values.
struct OutputTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  const Tensor* source = nullptr;             ///< of the same name
  std::optional<HeadGather> gather;           ///< none: as it is
  std::function<std::vector<double>()> make;  ///< if set, gives the values; called once
  int64_t make_bytes = 0;                     ///< memory that `make` takes

  int64_t elements() const;
  int64_t bytes() const { return elements() * dtype_bytes(dtype); }
  /// What a TensorMaker needs for it, beside make_bytes.
  int64_t converted_bytes() const;
  int64_t gathered_bytes() const { return gather ? bytes() : 0; }
  TensorSpec spec() const;
};

/// The source's tensor as it is, in `dtype` (none: its own).
OutputTensor copy_tensor(const Tensor& source, std::optional<DType> dtype);
/// The same with its heads gathered; nothing moves where they already lie so.
OutputTensor gather_tensor(const Tensor& source, std::optional<DType> dtype, HeadGather gather);

/// The bytes of output tensors, one after the other, in memory that is used again.
class TensorMaker {
 public:
  /// Valid until the next call. Throws Error (bad_data, naming file, tensor and element) for a
  /// value that is not finite or does not fit the type.
  std::span<const std::byte> make(const OutputTensor& tensor);

 private:
  std::span<const std::byte> make_new(const OutputTensor& tensor);
  std::span<const std::byte> convert(const OutputTensor& tensor);
  std::span<const std::byte> gather(const OutputTensor& tensor, const std::byte* data);

  AlignedBuffer converted_;
  AlignedBuffer gathered_;
};

}  // namespace gqa
