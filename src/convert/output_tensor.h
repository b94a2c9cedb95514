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
#include "gqa/progress.h"
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
  const Tensor* source = nullptr;    ///< of the same name; null: made of several
  std::optional<HeadGather> gather;  ///< none: as it is
  /// If set, gives the values; tells its argument how far it is, which may throw.
  std::function<std::vector<double>(const Progress& progress)> make;
  int64_t make_bytes = 0;  ///< memory that `make` takes
  /// If set, told where an earlier run wrote the tensor, if it did, before anything is made.
  std::function<void(WrittenTensor)> written = {};
  std::function<Json()> note = {};  ///< as in TensorSpec

  int64_t elements() const;
  int64_t bytes() const { return elements() * dtype_bytes(dtype); }
  TensorSpec spec() const;
};

/// The source's tensor as it is, in `dtype` (none: its own).
OutputTensor copy_tensor(const Tensor& source, std::optional<DType> dtype);
/// The same with its heads gathered; nothing moves where they already lie so.
OutputTensor gather_tensor(const Tensor& source, std::optional<DType> dtype, HeadGather gather);

/// The bytes of output tensors, one after the other, in pieces: a tensor of any size takes no more
/// memory than two of them, unless it is one to be made.
class PieceMaker {
 public:
  static constexpr int64_t piece_bytes = int64_t{4} << 20;
  static constexpr int64_t memory_bytes = 2 * piece_bytes;

  explicit PieceMaker(std::span<const OutputTensor> tensors) : tensors_(tensors) {}

  /// Makes what the next piece is taken from, if it is to be made. Before each call of next(), on
  /// the thread whose `progress` it is.
  void prepare(const Progress& progress);
  /// Empty after the last one. Valid until the call after the next: a piece can be written while
  /// the next one is made. Throws Error (bad_data, naming file, tensor and element) for a value
  /// that is not finite or does not fit the type.
  std::span<const std::byte> next();

 private:
  void skip_finished();
  void fill(const OutputTensor& tensor, int64_t n, std::byte* out);
  void gather(const OutputTensor& tensor, int64_t n, std::byte* out);

  std::span<const OutputTensor> tensors_;  ///< the one at hand and those after it
  int64_t at_ = 0;                         ///< next element of the one at hand
  std::vector<double> made_;               ///< the values of the one to be made, once prepared
  AlignedBuffer buffers_[2];
  int turn_ = 0;
};

}  // namespace gqa
