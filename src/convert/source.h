// The checkpoint that a conversion reads.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gqa/config.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "regroup/heads.h"

namespace gqa {

/// A model folder whose config and tensors fit together.
struct SourceModel {
  std::filesystem::path dir;
  std::string name;  ///< of the folder
  ModelConfig config;
  SharedJson config_json;  ///< never null
  Checkpoint checkpoint;
  std::vector<const Tensor*> tensors;  ///< in the order of expected_tensors()
  std::vector<std::string> carried;    ///< files that go into the output as they are, sorted
  std::vector<std::string> notes;      ///< what a person should know
};

/// Throws Error (no_input, bad_data).
SourceModel open_source(const std::filesystem::path& dir);

/// Checks that a tensor that the config does not call for may be left out: a copy of the tied head,
/// or RoPE frequencies, which the config gives. Throws Error (bad_data, naming the tensor)
/// otherwise.
void check_unused_tensor(const ModelConfig& config, const Checkpoint& checkpoint,
                         const Tensor& tensor);

/// Throws Error (bad_data) where tokenizer.json is not valid or has ids beyond the vocabulary.
/// False where there is none.
bool check_tokenizer(const ModelConfig& config, const std::filesystem::path& dir);

/// As Model::default_kv_dtype().
DType default_kv_dtype(const Checkpoint& checkpoint);
/// K and V of one token over all layers.
int64_t kv_bytes_per_token(const ModelConfig& config, DType kv_dtype);

/// A folder's own name, also of "." and "dir/".
std::string folder_name(const std::filesystem::path& dir);

}  // namespace gqa
