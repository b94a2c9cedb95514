// Writing safetensors, tensor by tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/output_file.h"

namespace gqa {

/// A tensor to come.
struct TensorSpec {
  std::string name;
  std::string dtype_name;  ///< "F32", ...
  std::vector<int64_t> shape;
  int64_t bytes = 0;  ///< what shape and dtype make
};

/// Writes model.safetensors into `dir`, or model-00001-of-0000N.safetensors and
/// model.safetensors.index.json where the tensors take more than max_shard_bytes (a tensor is never
/// split). Tensors are written in the order given. Files are synced. Throws Error: io, naming the
/// file; usage for specs that are not sound, or data that is not theirs.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& dir, std::vector<TensorSpec> tensors,
                    int64_t max_shard_bytes);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// The data of the next tensor, exactly its size.
  void write(std::span<const std::byte> data);
  /// After the last tensor: syncs, and writes the index if there is one.
  void finish();
  /// The files written, relative to dir; complete after finish().
  const std::vector<std::string>& files() const { return files_; }

 private:
  struct Shard {
    size_t first = 0, last = 0;  ///< tensors [first, last)
    std::string name;
  };
  void plan_shards(int64_t max_shard_bytes);
  void open_shard();
  void close_shard();
  void write_index();

  std::filesystem::path dir_;
  std::vector<TensorSpec> tensors_;
  std::vector<Shard> shards_;
  std::vector<std::string> files_;
  size_t shard_ = 0;                  ///< the one at hand
  size_t tensor_ = 0;                 ///< the next one
  std::unique_ptr<OutputFile> file_;  ///< the open shard
};

}  // namespace gqa
