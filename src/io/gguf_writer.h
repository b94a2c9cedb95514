// Writing GGUF, version 3, tensor by tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "gqa/gguf_dtype.h"
#include "io/output_file.h"

namespace gqa {

/// Elements that share a scale in q8_0, and the bytes that they take with it.
inline constexpr int64_t q8_0_block = 32;
inline constexpr int64_t q8_0_block_bytes = 2 + q8_0_block;

/// Key-value pairs, in the order in which they are added. Throws Error (usage) for a key that is
/// there already.
class GgufMetadata {
 public:
  void add_u32(std::string_view key, int64_t value);
  void add_f32(std::string_view key, double value);
  void add_bool(std::string_view key, bool value);
  void add_string(std::string_view key, std::string_view value);
  void add_u32s(std::string_view key, std::span<const int64_t> values);
  void add_i32s(std::string_view key, std::span<const int32_t> values);
  void add_f32s(std::string_view key, std::span<const float> values);
  void add_strings(std::string_view key, std::span<const std::string> values);

  int64_t size() const { return static_cast<int64_t>(keys_.size()); }
  /// As they lie in the file.
  const std::string& bytes() const { return bytes_; }

 private:
  void add_key(std::string_view key, uint32_t type);
  void add_array(std::string_view key, uint32_t type, size_t n);

  std::unordered_set<std::string> keys_;
  std::string bytes_;
};

/// A tensor to come. `shape` is outermost first, as everywhere else; the file has it the other way
/// round. Rows (the last dimension) of q8_0 are a whole number of blocks.
struct GgufTensor {
  std::string name;
  GgufDType dtype = GgufDType::f32;
  std::vector<int64_t> shape;

  /// Throws Error (usage) where the shape is not sound for the type or the size overflows.
  int64_t bytes() const;
};

/// What a file of these takes.
int64_t gguf_file_bytes(const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors);

/// Writes one file. Tensors are written in the order given, each aligned to 32 bytes. Throws Error:
/// io, naming the file; usage for tensors that are not sound, or data that is not theirs.
class GgufWriter {
 public:
  GgufWriter(const std::filesystem::path& file, const GgufMetadata& metadata,
             std::vector<GgufTensor> tensors);

  /// The data of the next tensor, exactly its size.
  void write(std::span<const std::byte> data);
  /// After the last tensor: syncs.
  void finish();

 private:
  std::vector<GgufTensor> tensors_;
  size_t tensor_ = 0;  ///< the next one
  OutputFile file_;
};

}  // namespace gqa
