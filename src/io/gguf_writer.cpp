#include "io/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "core/checked.h"
#include "core/fail.h"

namespace gqa {
namespace {

static_assert(std::endian::native == std::endian::little, "our GGUF files are little-endian");

constexpr std::string_view magic = "GGUF";
constexpr uint32_t version = 3;
constexpr int64_t alignment = 32;  // what readers take where `general.alignment` is absent

// Types of values, as the format numbers them.
constexpr uint32_t u32_type = 4, i32_type = 5, f32_type = 6, bool_type = 7, string_type = 8,
                   array_type = 9;

uint32_t type_number(GgufDType t) {
  switch (t) {
    case GgufDType::f32:
      return 0;
    case GgufDType::f16:
      return 1;
    case GgufDType::q8_0:
      return 8;
    case GgufDType::bf16:
      break;
  }
  return 30;
}

template <typename T>
void put(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void put_string(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out += text;
}

uint32_t as_u32(std::string_view key, int64_t value) {
  require(value >= 0 && value <= std::numeric_limits<uint32_t>::max(),
          "key `{}`: expected 32 bits without a sign, got {}", key, value);
  return static_cast<uint32_t>(value);
}

int64_t padded(int64_t bytes, const GgufTensor& tensor) {
  const auto sum = checked_add(bytes, alignment - 1);
  require(sum.has_value(), "tensor `{}`: the sum of all tensors overflows", tensor.name);
  return *sum / alignment * alignment;
}

/// All that stands before the data of the first tensor, padded.
std::string head_of(const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors) {
  std::string head(magic);
  put(head, version);
  put<uint64_t>(head, tensors.size());
  put<uint64_t>(head, static_cast<uint64_t>(metadata.size()));
  head += metadata.bytes();
  std::unordered_set<std::string_view> names;
  int64_t offset = 0;
  for (const GgufTensor& t : tensors) {
    require(names.insert(t.name).second, "tensor `{}`: expected a name of its own", t.name);
    put_string(head, t.name);
    put<uint32_t>(head, static_cast<uint32_t>(t.shape.size()));
    for (size_t i = t.shape.size(); i-- > 0;) put<uint64_t>(head, t.shape[i]);
    put(head, type_number(t.dtype));
    put<uint64_t>(head, offset);
    const auto end = checked_add(offset, t.bytes());
    require(end.has_value(), "tensor `{}`: the sum of all tensors overflows", t.name);
    offset = padded(*end, t);
  }
  head.resize(static_cast<size_t>(round_up(std::ssize(head), alignment)), '\0');
  return head;
}

}  // namespace

std::string_view gguf_dtype_name(GgufDType t) {
  switch (t) {
    case GgufDType::f32:
      return "f32";
    case GgufDType::f16:
      return "f16";
    case GgufDType::bf16:
      return "bf16";
    case GgufDType::q8_0:
      break;
  }
  return "q8_0";
}

std::optional<GgufDType> parse_gguf_dtype(std::string_view name) {
  for (const auto t : {GgufDType::f32, GgufDType::f16, GgufDType::bf16, GgufDType::q8_0}) {
    if (gguf_dtype_name(t) == name) return t;
  }
  return std::nullopt;
}

void GgufMetadata::add_key(std::string_view key, uint32_t type) {
  require(keys_.emplace(key).second, "key `{}`: given twice", key);
  put_string(bytes_, key);
  put(bytes_, type);
}

void GgufMetadata::add_array(std::string_view key, uint32_t type, size_t n) {
  add_key(key, array_type);
  put(bytes_, type);
  put<uint64_t>(bytes_, n);
}

void GgufMetadata::add_u32(std::string_view key, int64_t value) {
  add_key(key, u32_type);
  put(bytes_, as_u32(key, value));
}

void GgufMetadata::add_f32(std::string_view key, double value) {
  add_key(key, f32_type);
  put(bytes_, static_cast<float>(value));
}

void GgufMetadata::add_bool(std::string_view key, bool value) {
  add_key(key, bool_type);
  put<uint8_t>(bytes_, value ? 1 : 0);
}

void GgufMetadata::add_string(std::string_view key, std::string_view value) {
  add_key(key, string_type);
  put_string(bytes_, value);
}

void GgufMetadata::add_u32s(std::string_view key, std::span<const int64_t> values) {
  add_array(key, u32_type, values.size());
  for (const int64_t v : values) put(bytes_, as_u32(key, v));
}

void GgufMetadata::add_i32s(std::string_view key, std::span<const int32_t> values) {
  add_array(key, i32_type, values.size());
  for (const int32_t v : values) put(bytes_, v);
}

void GgufMetadata::add_f32s(std::string_view key, std::span<const float> values) {
  add_array(key, f32_type, values.size());
  for (const float v : values) put(bytes_, v);
}

void GgufMetadata::add_strings(std::string_view key, std::span<const std::string> values) {
  add_array(key, string_type, values.size());
  for (const std::string& v : values) put_string(bytes_, v);
}

int64_t GgufTensor::bytes() const {
  require(!shape.empty() && std::ranges::min(shape) >= 1,
          "tensor `{}`: expected sizes above 0, got {}", name, shape_text(shape));
  const bool blocks = dtype == GgufDType::q8_0;
  const int64_t unit = blocks ? q8_0_block : 1;
  require(shape.back() % unit == 0, "tensor `{}`: expected rows of whole blocks of {}, got {}",
          name, unit, shape_text(shape));
  const int64_t unit_bytes = blocks ? q8_0_block_bytes : dtype == GgufDType::f32 ? 4 : 2;
  std::optional<int64_t> bytes = checked_mul(shape.back() / unit, unit_bytes);
  for (size_t i = 0; bytes && i + 1 < shape.size(); ++i) bytes = checked_mul(*bytes, shape[i]);
  require(bytes.has_value(), "tensor `{}`: the size of {} overflows", name, shape_text(shape));
  return *bytes;
}

int64_t gguf_file_bytes(const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors) {
  int64_t bytes = std::ssize(head_of(metadata, tensors));
  for (const GgufTensor& t : tensors) {
    const auto end = checked_add(bytes, t.bytes());
    require(end.has_value(), "tensor `{}`: the sum of all tensors overflows", t.name);
    bytes = padded(*end, t);
  }
  return bytes;
}

GgufWriter::GgufWriter(const std::filesystem::path& file, const GgufMetadata& metadata,
                       std::vector<GgufTensor> tensors)
    : tensors_(std::move(tensors)), file_(file) {
  file_.write(head_of(metadata, tensors_));
}

void GgufWriter::write(std::span<const std::byte> data) {
  require(tensor_ < tensors_.size(), "expected {} tensors, got one more", tensors_.size());
  const GgufTensor& tensor = tensors_[tensor_];
  require(std::ssize(data) == tensor.bytes(), "tensor `{}`: expected {} bytes, got {}", tensor.name,
          tensor.bytes(), data.size());
  file_.write(data);
  const int64_t padding = padded(tensor.bytes(), tensor) - tensor.bytes();
  file_.write(std::string(static_cast<size_t>(padding), '\0'));
  ++tensor_;
}

void GgufWriter::finish() {
  require(tensor_ == tensors_.size(), "expected {} tensors, got {}", tensors_.size(), tensor_);
  file_.close();
}

}  // namespace gqa
