#include "io/safetensors_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "core/checked.h"
#include "core/fail.h"
#include "core/mapped_file.h"
#include "core/text.h"
#include "io/folder.h"
#include "io/json_value.h"
#include "io/safetensors_dtype.h"
#include "io/write_journal.h"

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
                                     std::vector<TensorSpec> tensors, int64_t max_shard_bytes,
                                     WriteJournal* journal, const Progress& progress,
                                     std::string stem)
    : dir_(dir), stem_(std::move(stem)), tensors_(std::move(tensors)), journal_(journal) {
  require(max_shard_bytes > 0, "expected a shard size above 0, got {}", max_shard_bytes);
  check_specs(tensors_);
  plan_shards(max_shard_bytes);
  if (journal_ != nullptr) {
    go_on(progress);
  } else {
    open_shard();
  }
  end_tensors();
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
    shards_[i].name = shards_.size() == 1 ? fmt::format("{}.safetensors", stem_)
                                          : fmt::format("{}-{:05}-of-{:05}.safetensors", stem_,
                                                        i + 1, shards_.size());
  }
}

std::string SafetensorsWriter::header(const Shard& shard) const {
  return header_of(std::span(tensors_).subspan(shard.first, shard.last - shard.first));
}

/// Passes over what earlier runs completed, and opens the shard of the first tensor that they
/// didn't.
void SafetensorsWriter::go_on(const Progress& progress) {
  remove_others();
  while (true) {
    const std::filesystem::path path = dir_ / shards_[shard_].name;
    std::error_code unknown;
    int64_t keep_bytes = 0;
    if (std::filesystem::exists(path, unknown)) {
      keep_bytes = trusted_bytes(MappedFile(path).bytes());
      if (progress) progress("compare", std::ssize(files_) + 1, std::ssize(shards_));
    }
    open_shard(keep_bytes);
    if (tensor_ < shards_[shard_].last || shard_ + 1 == shards_.size()) break;
    close_shard();
  }
  journal_->keep(tensor_);
}

void SafetensorsWriter::remove_others() const {
  const auto is_shard = [&](const std::filesystem::path& path) {
    return std::any_of(shards_.begin(), shards_.end(),
                       [&](const Shard& shard) { return path.filename() == shard.name; });
  };
  const std::error_code error = remove_contents(dir_, is_shard);
  if (error) fail(ErrorKind::io, "{}: can't be cleaned: {}", dir_.string(), error.message());
}

/// How much of a shard's file is as the journal says, to the end of a tensor; counts the tensors
/// and leaves the hash of these bytes.
int64_t SafetensorsWriter::trusted_bytes(std::span<const std::byte> file) {
  const Shard& shard = shards_[shard_];
  const std::string start = header(shard);
  if (file.size() < start.size() || std::memcmp(file.data(), start.data(), start.size()) != 0) {
    return 0;
  }
  hash_ = Sha256();
  hash_.update(std::as_bytes(std::span(start)));
  int64_t end = std::ssize(start);
  for (; tensor_ < shard.last && tensor_ < journal_->entries().size(); ++tensor_) {
    const TensorSpec& tensor = tensors_[tensor_];
    if (tensor.bytes > std::ssize(file) - end) break;
    Sha256 hash = hash_;
    hash.update(file.subspan(end, tensor.bytes));
    const JournalEntry& entry = journal_->entries()[tensor_];
    if (entry != JournalEntry{tensor.name, shard.name, end + tensor.bytes, hash.hex(), entry.note})
      break;
    hash_ = hash;
    end += tensor.bytes;
  }
  return end;
}

void SafetensorsWriter::open_shard(int64_t keep_bytes) {
  const Shard& shard = shards_[shard_];
  file_ = std::make_unique<OutputFile>(dir_ / shard.name, keep_bytes);
  file_bytes_ = keep_bytes;
  if (keep_bytes > 0) return;
  const std::string start = header(shard);
  hash_ = Sha256();
  hash_.update(std::as_bytes(std::span(start)));
  file_->write(start);
  file_bytes_ = std::ssize(start);
}

void SafetensorsWriter::close_shard() {
  file_->close();
  file_.reset();
  files_.push_back({shards_[shard_].name, hash_.hex()});
  ++shard_;
}

void SafetensorsWriter::write(std::span<const std::byte> data) {
  ThreadPool alone(1);
  write(data, alone, [] {});
}

void SafetensorsWriter::write(std::span<const std::byte> data, ThreadPool& pool,
                              const std::function<void()>& meanwhile) {
  require(data.empty() || tensor_ < tensors_.size(), "expected {} tensors, got one more",
          tensors_.size());
  if (!data.empty()) {
    const TensorSpec& tensor = tensors_[tensor_];
    require(std::ssize(data) <= tensor.bytes - tensor_bytes_,
            "tensor `{}`: expected {} more bytes, got {}", tensor.name,
            tensor.bytes - tensor_bytes_, data.size());
  }
  pool.parallel_for(3, [&](int64_t task, int) {
    if (task == 0) file_->write(data);
    if (task == 1) hash_.update(data);
    if (task == 2) meanwhile();
  });
  tensor_bytes_ += std::ssize(data);
  file_bytes_ += std::ssize(data);
  end_tensors();
}

/// Counts the tensor at hand if it is complete, and the empty ones that follow.
void SafetensorsWriter::end_tensors() {
  while (tensor_ < tensors_.size() && tensor_bytes_ == tensors_[tensor_].bytes) {
    if (journal_ != nullptr) {
      file_->flush();
      const TensorSpec& done = tensors_[tensor_];
      journal_->add({done.name, shards_[shard_].name, file_bytes_, hash_.hex(),
                     done.note ? done.note() : Json()});
    }
    ++tensor_;
    tensor_bytes_ = 0;
    if (tensor_ == shards_[shard_].last && shard_ + 1 < shards_.size()) {
      close_shard();
      open_shard();
    }
  }
}

std::vector<std::byte> WrittenTensor::read() const {
  const MappedFile mapped(file);
  const std::span<const std::byte> all = mapped.bytes();
  if (std::ssize(all) < begin + bytes) {
    fail(ErrorKind::io, "{}: expected at least {} bytes, got {}", file.string(), begin + bytes,
         all.size());
  }
  const auto own = all.subspan(begin, bytes);
  return {own.begin(), own.end()};
}

WrittenTensor SafetensorsWriter::written(size_t tensor) {
  require(tensor < tensor_, "tensor {}: not written yet", tensor);
  const auto of_shard = [&](const Shard& shard) { return tensor < shard.last; };
  const Shard& shard = *std::find_if(shards_.begin(), shards_.end(), of_shard);
  WrittenTensor result{dir_ / shard.name, std::ssize(header(shard)), tensors_[tensor].bytes};
  for (size_t i = shard.first; i < tensor; ++i) result.begin += tensors_[i].bytes;
  if (journal_ != nullptr) {
    result.note = std::make_shared<const Json>(journal_->entries()[tensor].note);
  }
  if (file_) file_->flush();
  return result;
}

void SafetensorsWriter::finish() {
  require(tensor_ == tensors_.size(), "expected {} tensors, got {}", tensors_.size(), tensor_);
  close_shard();
  if (shards_.size() > 1) write_index();
}

void SafetensorsWriter::write_index() {
  const std::string name = stem_ + ".safetensors.index.json";
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
  files_.push_back({name, sha256_of_file(dir_ / name)});
}

}  // namespace gqa
