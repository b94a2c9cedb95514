#include "io/checkpoint.h"

#include <set>

#include "core/fail.h"
#include "io/folder.h"
#include "io/json_value.h"
#include "io/quantised.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

constexpr const char* single_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

[[noreturn]] void fail_without_weights(const fs::path& dir) {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!is_there(dir / name)) continue;
    fail(ErrorKind::bad_data,
         "{}: pickled weights are not read: expected {} or {}. To convert: load the model with "
         "transformers and call save_pretrained(..., safe_serialization=True)",
         (dir / name).string(), single_name, index_name);
  }
  fail(ErrorKind::no_input, "{}: no weights: expected {} or {}", dir.string(), single_name,
       index_name);
}

/// A plain file name: an index must not lead out of its folder.
bool is_shard_name(std::string_view name) {
  return name.ends_with(".safetensors") &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

using WeightMap = std::map<std::string, std::string, std::less<>>;  // tensor -> shard

WeightMap read_index(const fs::path& index) {
  const Json json = read_json(index);
  const JsonFields map = JsonFields(json, index).object("weight_map");
  WeightMap shard_of;
  for (const auto& [tensor, shard] : map.json().items()) {
    if (!shard.is_string() || !is_shard_name(shard.get_ref<const std::string&>())) {
      fail(ErrorKind::bad_data,
           "{}: expected the name of a .safetensors file in the same folder, got {}",
           map.where(tensor), json_preview(shard));
    }
    shard_of.emplace(tensor, shard.get_ref<const std::string&>());
  }
  if (shard_of.empty()) {
    fail(ErrorKind::bad_data, "{}: field `weight_map`: expected tensors, got none", index.string());
  }
  return shard_of;
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& dir) {
  check_model_folder(dir);
  Checkpoint checkpoint;
  if (is_there(dir / single_name)) {
    checkpoint.source_ = dir / single_name;
    checkpoint.add_file(checkpoint.source_);
  } else if (is_there(dir / index_name)) {
    checkpoint.source_ = dir / index_name;
    checkpoint.add_shards(dir);
    checkpoint.files_.push_back(checkpoint.source_);
  } else {
    fail_without_weights(dir);
  }
  return checkpoint;
}

void Checkpoint::add_file(const fs::path& file) {
  const SafetensorsFile& shard = shards_.emplace_back(file);
  files_.push_back(file);
  for (const Tensor& tensor : shard.tensors()) {
    refuse_quantised(tensor);
    order_.push_back(&tensor);
    const auto [other, is_new] = by_name_.emplace(tensor.name, &tensor);
    if (!is_new) {
      fail(ErrorKind::bad_data, "{}: tensor `{}`: also in {}", file.string(), tensor.name,
           other->second->file->string());
    }
  }
}

void Checkpoint::add_shards(const fs::path& dir) {
  const WeightMap shard_of = read_index(source_);
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shard_of) names.insert(shard);
  for (const auto& name : names) {
    if (!is_there(dir / name)) {
      fail(ErrorKind::no_input, "{}: no such file, but {} names it", (dir / name).string(),
           source_.string());
    }
    add_file(dir / name);
  }
  for (const auto& [tensor, shard] : shard_of) {
    const Tensor* found = find(tensor);
    if (found != nullptr && *found->file == dir / shard) continue;
    fail(ErrorKind::bad_data, "{}: tensor `{}`: expected in {}, got {}", source_.string(), tensor,
         shard, found == nullptr ? "none" : "it in " + found->file->filename().string());
  }
  for (const Tensor* tensor : order_) {
    if (shard_of.contains(tensor->name)) continue;
    fail(ErrorKind::bad_data, "{}: tensor `{}`: not listed in {}", tensor->file->string(),
         tensor->name, source_.string());
  }
}

const Tensor* Checkpoint::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

const Tensor& Checkpoint::at(std::string_view name) const {
  const Tensor* tensor = find(name);
  if (tensor == nullptr)
    fail(ErrorKind::bad_data, "{}: tensor `{}`: missing", source_.string(), name);
  return *tensor;
}

const Tensor& Checkpoint::at(std::string_view name, const std::vector<int64_t>& shape) const {
  const Tensor& tensor = at(name);
  if (!tensor.dtype || tensor.shape != shape) {
    fail(ErrorKind::bad_data, "{}: tensor `{}`: expected F32, F16 or BF16 {}, got {} {}",
         tensor.file->string(), name, shape_text(shape), tensor.dtype_name,
         shape_text(tensor.shape));
  }
  return tensor;
}

}  // namespace gqa
