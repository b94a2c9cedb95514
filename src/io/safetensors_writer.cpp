#include "io/safetensors_writer.h"

#include <bit>
#include <cstring>
#include <map>
#include <string_view>
#include <unordered_set>

#include "core/checked.h"
#include "core/fail.h"
#include "core/text.h"
#include "io/json.h"
#include "io/safetensors_dtype.h"

namespace gqa {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr size_t alignment = 8;  // of the data in the file

void check_specs(const std::vector<TensorSpec>& tensors) {
  std::unordered_set<std::string_view> names;
  std::optional<int64_t> total = 0;
  for (const auto& t : tensors) {
    require(names.insert(t.name).second && t.name != "__metadata__",
            "tensor `{}`: expected a name of its own", t.name);
    require(!find_invalid_utf8(t.name), "tensor `{}`: expected a name in UTF-8", t.name);
    const auto* dtype = find_safetensors_dtype(t.dtype_name);
    require(dtype != nullptr, "tensor `{}`: unknown dtype `{}`", t.name, t.dtype_name);
    const auto elements = dense_elements(t.shape);
    const auto bytes = elements ? checked_mul(*elements, dtype->bytes) : std::nullopt;
    require(bytes == t.bytes, "tensor `{}`: {} bytes are not those of {} {}", t.name, t.bytes,
            t.dtype_name, shape_text(t.shape));
    total = checked_add(*total, t.bytes);
    require(total.has_value(), "tensor `{}`: the sum of all tensors overflows", t.name);
  }
}

/// The length and the header, padded with spaces so that the data starts aligned.
std::string header_of(std::span<const TensorSpec> tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t offset = 0;
  for (const auto& t : tensors) {
    append_member(header, t.name,
                  {{"dtype", t.dtype_name},
                   {"shape", t.shape},
                   {"data_offsets", {offset, offset + t.bytes}}});
    offset += t.bytes;
  }
  std::string text = header.dump();
  text.resize(static_cast<size_t>(round_up(std::ssize(text), alignment)), ' ');
  std::string length(8, '\0');
  const uint64_t n = text.size();
  std::memcpy(length.data(), &n, sizeof n);
  return length + text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& dir,
                                     std::vector<TensorSpec> tensors, int64_t max_shard_bytes)
    : dir_(dir), tensors_(std::move(tensors)) {
  require(max_shard_bytes > 0, "expected a shard size above 0, got {}", max_shard_bytes);
  check_specs(tensors_);
  plan_shards(max_shard_bytes);
  open_shard();
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::plan_shards(int64_t max_shard_bytes) {
  shards_.emplace_back();
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (bytes > 0 && tensors_[i].bytes > max_shard_bytes - bytes) {
      shards_.push_back({i, i, {}});
      bytes = 0;
    }
    bytes += tensors_[i].bytes;
    shards_.back().last = i + 1;
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    shards_[i].name = shards_.size() == 1
                          ? "model.safetensors"
                          : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size());
  }
}

void SafetensorsWriter::open_shard() {
  const Shard& shard = shards_[shard_];
  file_ = std::make_unique<OutputFile>(dir_ / shard.name);
  files_.push_back(shard.name);
  file_->write(header_of(std::span(tensors_).subspan(shard.first, shard.last - shard.first)));
}

void SafetensorsWriter::close_shard() {
  file_->close();
  file_.reset();
  ++shard_;
}

void SafetensorsWriter::write(std::span<const std::byte> data) {
  require(tensor_ < tensors_.size(), "expected {} tensors, got one more", tensors_.size());
  const TensorSpec& tensor = tensors_[tensor_];
  require(std::ssize(data) == tensor.bytes, "tensor `{}`: expected {} bytes, got {}", tensor.name,
          tensor.bytes, data.size());
  if (tensor_ == shards_[shard_].last) {
    close_shard();
    open_shard();
  }
  file_->write(data);
  ++tensor_;
}

void SafetensorsWriter::finish() {
  require(tensor_ == tensors_.size(), "expected {} tensors, got {}", tensors_.size(), tensor_);
  close_shard();
  if (shards_.size() > 1) write_index();
}

void SafetensorsWriter::write_index() {
  constexpr const char* name = "model.safetensors.index.json";
  int64_t total_bytes = 0;
  std::map<std::string, std::string> shard_of;  // sorted, as others write it
  for (const Shard& shard : shards_) {
    for (size_t i = shard.first; i < shard.last; ++i) {
      total_bytes += tensors_[i].bytes;
      shard_of.emplace(tensors_[i].name, shard.name);
    }
  }
  Json weight_map = Json::object();
  for (const auto& [tensor, shard] : shard_of) append_member(weight_map, tensor, shard);
  const Json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", weight_map}};
  OutputFile file(dir_ / name);
  file.write(index.dump(2) + "\n");
  file.close();
  files_.push_back(name);
}

}  // namespace gqa
