// safetensors files made by hand, so that tests of the reader do not lean on the writer.
#pragma once

#include <fmt/core.h>
#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/half.h"
#include "gqa/dtype.h"
#include "support/files.h"

namespace gqa::test {

/// A tensor as it lies in a file. `dtype` is the file's name for it: "F32", "BF16", ...
struct RawTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string data;
};

/// Values rounded to `t`.
inline RawTensor raw_tensor(std::string name, std::vector<int64_t> shape,
                            const std::vector<float>& values, DType t = DType::f32) {
  std::string data(values.size() * static_cast<size_t>(dtype_bytes(t)), '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    store_element(data.data(), t, static_cast<int64_t>(i), values[i]);
  }
  const char* dtype = t == DType::f32 ? "F32" : t == DType::f16 ? "F16" : "BF16";
  return {std::move(name), dtype, std::move(shape), std::move(data)};
}

/// Any header text, any data: nothing is checked.
inline std::string raw_safetensors(std::string_view header, std::string_view data) {
  std::string bytes(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, sizeof length);
  bytes += header;
  bytes += data;
  return bytes;
}

/// The bytes of a sound file that holds these tensors, in their order. Names need no escapes.
inline std::string safetensors_bytes(const std::vector<RawTensor>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  std::string data;
  for (const auto& t : tensors) {
    header +=
        fmt::format(R"(,"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", t.name,
                    t.dtype, fmt::join(t.shape, ","), data.size(), data.size() + t.data.size());
    data += t.data;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return raw_safetensors(header, data);
}

inline void write_safetensors(const std::filesystem::path& file,
                              const std::vector<RawTensor>& tensors) {
  put_file(file, safetensors_bytes(tensors));
}

}  // namespace gqa::test
