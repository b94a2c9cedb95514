// What becomes of each tensor on its way into a GGUF file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "convert/source.h"
#include "core/aligned_buffer.h"
#include "io/gguf_writer.h"

namespace gqa {

/// A tensor of the file: a source's, its rows in another order, or values of our own.
struct GgufOutput {
  GgufTensor tensor;
  const Tensor* source = nullptr;  ///< null: `values`
  std::vector<int64_t> rows;       ///< row i is the source's rows[i]; empty: as they are
  std::vector<float> values;
};

/// All tensors, in the order of the forward pass. `dtype` is that of the matrices; none: their own.
std::vector<GgufOutput> gguf_outputs(const SourceModel& source, std::optional<GgufDType> dtype);

/// Whether frequencies are told by factors, a tensor, since llama.cpp's metadata can't say them.
bool has_rope_factors(const RopeConfig& rope);

/// The bytes of output tensors, one after the other, in memory that is used again.
class GgufTensorMaker {
 public:
  /// Valid until the next call. Throws Error (bad_data, naming file, tensor and element) for a
  /// value that is not finite or does not fit the type.
  std::span<const std::byte> make(const GgufOutput& output);

 private:
  AlignedBuffer bytes_;
  std::vector<float> row_;
};

}  // namespace gqa
