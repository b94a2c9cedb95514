// Writing safetensors, tensor by tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "gqa/progress.h"
#include "io/json.h"
#include "io/output_file.h"
#include "io/sha256.h"

namespace gqa {

class WriteJournal;

/// A tensor to come.
struct TensorSpec {
  std::string name;
  std::string dtype_name;  ///< "F32", ...
  std::vector<int64_t> shape;
  int64_t bytes = 0;  ///< what shape and dtype make
  /// Asked for once it is complete: what a journal is to note of it. May be empty.
  std::function<Json()> note = {};
};

/// A tensor that is complete.
struct WrittenTensor {
  std::filesystem::path file;
  int64_t begin = 0;  ///< of its bytes in the file
  int64_t bytes = 0;
  SharedJson note = {};  ///< of the journal; null: nothing

  std::vector<std::byte> read() const;
};

struct FileHash {
  std::string name;  ///< in the folder
  std::string sha256;
};

/// Writes model.safetensors (or with another `stem`) into `dir`, or
/// model-00001-of-0000N.safetensors and model.safetensors.index.json where the tensors take more
/// than max_shard_bytes (a tensor is never split). Tensors are written in the order given. Files
/// are synced. Throws Error: io, naming the file; usage for specs that are not sound, or data that
/// is not theirs.
class SafetensorsWriter {
 public:
  /// With a journal, goes on after the last tensor that it records and whose bytes are those of its
  /// hash, and adds to it; `progress` tells of bytes compared. What else is in `dir` goes: nothing
  /// says whose it is.
  SafetensorsWriter(const std::filesystem::path& dir, std::vector<TensorSpec> tensors,
                    int64_t max_shard_bytes, WriteJournal* journal = nullptr,
                    const Progress& progress = {}, std::string stem = "model");
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// Tensors that are complete: above 0 at once where a journal was gone on with.
  size_t tensors_done() const { return tensor_; }

  /// The next bytes of the tensor at hand, at most all that it lacks. They are stored and hashed
  /// while `meanwhile` runs, each on a thread of `pool` if it has enough.
  void write(std::span<const std::byte> data, ThreadPool& pool,
             const std::function<void()>& meanwhile);
  void write(std::span<const std::byte> data);

  /// Of tensors_done(). Its file has it until somebody changes the folder.
  WrittenTensor written(size_t tensor);

  /// After the last tensor: syncs, and writes the index if there is one.
  void finish();
  /// The files written and their hashes; complete after finish().
  const std::vector<FileHash>& files() const { return files_; }

 private:
  struct Shard {
    size_t first = 0, last = 0;  ///< tensors [first, last)
    std::string name;
  };
  void plan_shards(int64_t max_shard_bytes);
  std::string header(const Shard& shard) const;
  void go_on(const Progress& progress);
  void remove_others() const;
  int64_t trusted_bytes(std::span<const std::byte> file);
  void open_shard(int64_t keep_bytes = 0);
  void close_shard();
  void end_tensors();
  void write_index();

  std::filesystem::path dir_;
  std::string stem_;
  std::vector<TensorSpec> tensors_;
  std::vector<Shard> shards_;
  std::vector<FileHash> files_;
  WriteJournal* journal_;
  size_t shard_ = 0;                  ///< the one at hand
  size_t tensor_ = 0;                 ///< the next one
  int64_t tensor_bytes_ = 0;          ///< what of it has come
  std::unique_ptr<OutputFile> file_;  ///< the open shard
  Sha256 hash_;                       ///< of what it holds
  int64_t file_bytes_ = 0;            ///< that it holds
};

}  // namespace gqa
