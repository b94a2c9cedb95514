// The tensors of a model folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"
#include "gqa/dtype.h"

namespace gqa {

/// A tensor in a mapped safetensors file. Dense, row-major; `data` may be unaligned.
struct Tensor {
  std::string name;
  std::string dtype_name;      ///< as the file says: "F32", "BF16", "I64", ...
  std::optional<DType> dtype;  ///< none where it is not one that we compute with
  std::vector<int64_t> shape;
  int64_t elements = 0;
  int64_t bytes = 0;
  const std::byte* data = nullptr;
  const std::filesystem::path* file = nullptr;
};

/// Maps a safetensors file and checks all of its header before any data is used: header inside the
/// file, JSON sound, names unique, dtypes known, shapes' products and offsets without overflow,
/// byte ranges that match the shapes, lie inside the file, and cover it without overlap or gap.
/// Throws Error: no_input, io, bad_data (naming file and tensor).
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  SafetensorsFile(const SafetensorsFile&) = delete;  // tensors point into it
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::vector<Tensor>& tensors() const {
    return tensors_;
  }  ///< in the order of their offsets
  const MappedFile& mapped() const { return mapped_; }

 private:
  MappedFile mapped_;
  std::vector<Tensor> tensors_;
};

/// All tensors of a folder: model.safetensors, or model.safetensors.index.json and its shards.
class Checkpoint {
 public:
  /// Throws Error: no_input where there are no weights, bad_data where a file is not valid, where
  /// the index names a file outside the folder (absolute, `..`) or a tensor that its shard lacks,
  /// where a shard holds a tensor of another shard, where there are pickled weights alone (says how
  /// to get safetensors), or where weights are quantised (F8_E4M3, `.qweight`, ...: named).
  static Checkpoint open(const std::filesystem::path& dir);

  const Tensor* find(std::string_view name) const;  ///< null where absent
  /// Throws Error (bad_data) where it is missing, naming the folder's weight file or index.
  const Tensor& at(std::string_view name) const;
  /// The same, for a floating-point tensor of exactly this shape. Throws Error (bad_data)
  /// otherwise.
  const Tensor& at(std::string_view name, const std::vector<int64_t>& shape) const;

  /// In the order of the files and of their offsets.
  const std::vector<const Tensor*>& tensors() const { return order_; }
  /// The safetensors files, and the index if there is one.
  const std::vector<std::filesystem::path>& files() const { return files_; }

 private:
  Checkpoint() = default;
  void add_file(const std::filesystem::path& file);
  void add_shards(const std::filesystem::path& dir);

  std::filesystem::path source_;  ///< what messages name: model.safetensors or the index
  std::deque<SafetensorsFile> shards_;
  std::vector<const Tensor*> order_;
  std::map<std::string, const Tensor*, std::less<>> by_name_;
  std::vector<std::filesystem::path> files_;
};

/// Where an element of a dense array of this shape stands: "[3, 17]".
std::string position_text(int64_t element, const std::vector<int64_t>& shape);

/// Throws Error (bad_data, naming file, tensor and element) where a floating-point tensor has a NaN
/// or an infinity. Tensors of other types pass.
void check_finite(const Tensor& tensor);
/// The same for elements [begin, end).
void check_finite(const Tensor& tensor, int64_t begin, int64_t end);

}  // namespace gqa
