#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>

#include "core/checked.h"
#include "core/fail.h"
#include "io/checkpoint.h"
#include "io/json_value.h"
#include "io/safetensors_dtype.h"

namespace gqa {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr int64_t length_bytes = 8;
constexpr int64_t max_header_bytes = 100'000'000;  // as the format's own library has it

/// The two parts of a file.
struct Parts {
  std::string_view header;
  std::span<const std::byte> data;
};

Parts split(const MappedFile& mapped) {
  const auto bytes = mapped.bytes();
  const std::string file = mapped.path().string();
  if (std::ssize(bytes) < length_bytes) {
    fail(ErrorKind::bad_data,
         "{}: not a safetensors file: expected at least {} bytes (the header's length), got {}",
         file, length_bytes, bytes.size());
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), length_bytes);
  const auto rest = bytes.subspan(length_bytes);
  if (length > max_header_bytes) {
    fail(ErrorKind::bad_data,
         "{}: not a safetensors file: expected a header of at most {} bytes, got {}", file,
         max_header_bytes, length);
  }
  if (length > rest.size()) {
    fail(ErrorKind::bad_data, "{}: truncated: expected a header of {} bytes, got {}", file, length,
         rest.size());
  }
  return {{reinterpret_cast<const char*>(rest.data()), length}, rest.subspan(length)};
}

void check_metadata(const Json& metadata, const std::filesystem::path& file) {
  const JsonFields fields(metadata, file, "__metadata__");
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) {
      fail(ErrorKind::bad_data, "{}: expected a string, got {}", fields.where(key),
           value.type_name());
    }
  }
}

/// A list of integers >= 0, not a lone one.
std::vector<int64_t> read_list(const JsonFields& fields, std::string_view key) {
  constexpr size_t max_length = 64;  // more dimensions than anybody uses
  const Json& list = fields.get(key);
  if (!list.is_array() || list.size() > max_length) {
    fail(ErrorKind::bad_data, "{}: expected a list of at most {} integers, got {}",
         fields.where(key), max_length, json_preview(list));
  }
  return fields.integers(key, 0, std::numeric_limits<int64_t>::max());
}

/// A tensor's entry in the header, its size checked against its place in the data.
Tensor read_tensor(const std::string& name, const Json& entry, const MappedFile& mapped,
                   std::span<const std::byte> data) {
  const std::string file = mapped.path().string();
  const JsonFields fields(entry, mapped.path(), name);
  Tensor tensor;
  tensor.name = name;
  tensor.file = &mapped.path();
  tensor.dtype_name = fields.string("dtype");
  const SafetensorsDType* dtype = find_safetensors_dtype(tensor.dtype_name);
  if (dtype == nullptr) {
    fail(ErrorKind::bad_data, "{}: expected one of {}, got {}", fields.where("dtype"),
         safetensors_dtype_names(), json_preview(fields.get("dtype")));
  }
  tensor.dtype = dtype->dtype;
  tensor.shape = read_list(fields, "shape");
  const auto elements = dense_elements(tensor.shape);
  const auto bytes = elements ? checked_mul(*elements, dtype->bytes) : std::nullopt;
  if (!bytes) {
    fail(ErrorKind::bad_data, "{}: expected a size below 2^63 bytes, got {}", fields.where("shape"),
         shape_text(tensor.shape));
  }
  tensor.elements = *elements;
  tensor.bytes = *bytes;
  const auto range = read_list(fields, "data_offsets");
  if (range.size() != 2 || range[0] > range[1] || range[1] > std::ssize(data)) {
    fail(ErrorKind::bad_data, "{}: expected a begin and an end within {} bytes of data, got {}",
         fields.where("data_offsets"), data.size(), shape_text(range));
  }
  if (range[1] - range[0] != tensor.bytes) {
    fail(ErrorKind::bad_data, "{}: tensor `{}`: expected {} bytes for {} {}, got {} (offsets {})",
         file, name, tensor.bytes, tensor.dtype_name, shape_text(tensor.shape), range[1] - range[0],
         shape_text(range));
  }
  tensor.data = data.data() + range[0];
  return tensor;
}

/// Sorts tensors by their offsets; they must cover the data without overlap or gap.
void check_cover(std::vector<Tensor>& tensors, std::span<const std::byte> data,
                 const std::string& file) {
  std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    return a.data != b.data ? a.data < b.data : a.bytes < b.bytes;
  });
  const std::byte* end = data.data();
  std::string_view before = "the header";
  for (const Tensor& tensor : tensors) {
    if (tensor.data != end) {
      fail(ErrorKind::bad_data,
           "{}: tensor `{}`: expected its data at offset {}, after {}, got {}: {}", file,
           tensor.name, end - data.data(), before, tensor.data - data.data(),
           tensor.data < end ? "tensors overlap" : "a gap");
    }
    end += tensor.bytes;
    before = tensor.name;
  }
  const auto covered = end - data.data();
  if (covered != std::ssize(data)) {
    fail(ErrorKind::bad_data, "{}: expected {} bytes of data, as its tensors take, got {}", file,
         covered, data.size());
  }
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : mapped_(path) {
  const Parts parts = split(mapped_);
  if (!parts.header.starts_with('{')) {
    fail(ErrorKind::bad_data, "{}: not a safetensors file: expected a header that starts with `{{`",
         path.string());
  }
  const Json header = parse_json(parts.header, mapped_.path());
  const JsonFields fields(header, mapped_.path());
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      check_metadata(entry, mapped_.path());
    } else {
      tensors_.push_back(read_tensor(name, entry, mapped_, parts.data));
    }
  }
  check_cover(tensors_, parts.data, path.string());
}

}  // namespace gqa
