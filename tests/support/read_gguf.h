// GGUF files read by hand, so that tests of the writer do not lean on it.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "core/half.h"

namespace gqa::test {

using GgufValue = std::variant<int64_t, float, bool, std::string, std::vector<int64_t>,
                               std::vector<float>, std::vector<std::string>>;

struct ReadTensor {
  std::vector<uint64_t> dims;  ///< innermost first
  uint32_t type = 0;
  uint64_t offset = 0;  ///< in the file
  std::string data;
  std::vector<float> values;
};

class GgufReader {
 public:
  explicit GgufReader(std::string file) : file_(std::move(file)) {
    if (file_.substr(0, 4) != "GGUF") throw std::runtime_error("no GGUF");
    at_ = 4;
    version = take<uint32_t>();
    const auto n_tensors = take<uint64_t>();
    const auto n_pairs = take<uint64_t>();
    for (uint64_t i = 0; i < n_pairs; ++i) {
      const std::string key = text();
      if (!metadata.emplace(key, value(take<uint32_t>())).second) {
        throw std::runtime_error("given twice: " + key);
      }
    }
    read_tensors(n_tensors);
  }

  template <typename T>
  T get(const std::string& key) const {
    return std::get<T>(metadata.at(key));
  }
  int64_t number(const std::string& key) const { return get<int64_t>(key); }

  uint32_t version = 0;
  std::map<std::string, GgufValue> metadata;
  std::map<std::string, ReadTensor> tensors;
  std::vector<std::string> order;  ///< of the tensors
  uint64_t data_begin = 0;

 private:
  template <typename T>
  T take() {
    T v;
    std::memcpy(&v, file_.substr(at_, sizeof v).data(), sizeof v);
    at_ += sizeof v;
    if (at_ > file_.size()) throw std::runtime_error("cut short");
    return v;
  }
  std::string text() {
    const auto n = take<uint64_t>();
    at_ += n;
    if (at_ > file_.size()) throw std::runtime_error("cut short");
    return file_.substr(at_ - n, n);
  }
  template <typename T, typename Take>
  std::vector<T> list(const Take& take_one) {
    const auto n = take<uint64_t>();
    std::vector<T> values;
    for (uint64_t i = 0; i < n; ++i) values.push_back(take_one());
    return values;
  }
  GgufValue value(uint32_t type) {
    if (type == 4) return int64_t{take<uint32_t>()};
    if (type == 5) return int64_t{take<int32_t>()};
    if (type == 6) return take<float>();
    if (type == 7) return take<uint8_t>() != 0;
    if (type == 8) return text();
    if (type != 9) throw std::runtime_error("type " + std::to_string(type));
    const auto of = take<uint32_t>();
    if (of == 4) return list<int64_t>([&] { return int64_t{take<uint32_t>()}; });
    if (of == 5) return list<int64_t>([&] { return int64_t{take<int32_t>()}; });
    if (of == 6) return list<float>([&] { return take<float>(); });
    if (of == 8) return list<std::string>([&] { return text(); });
    throw std::runtime_error("list of " + std::to_string(of));
  }

  void read_tensors(uint64_t n) {
    for (uint64_t i = 0; i < n; ++i) {
      order.push_back(text());
      ReadTensor& t = tensors[order.back()];
      t.dims.resize(take<uint32_t>());
      for (uint64_t& d : t.dims) d = take<uint64_t>();
      t.type = take<uint32_t>();
      t.offset = take<uint64_t>();
    }
    data_begin = (at_ + 31) / 32 * 32;
    for (auto& [name, t] : tensors) {
      t.offset += data_begin;
      decode(t);
    }
  }
  void decode(ReadTensor& t) const {
    uint64_t n = 1;
    for (const uint64_t d : t.dims) n *= d;
    const uint64_t bytes = t.type == 0 ? 4 * n : t.type == 8 ? n / 32 * 34 : 2 * n;
    if (t.offset + bytes > file_.size()) throw std::runtime_error("cut short");
    t.data = file_.substr(t.offset, bytes);
    for (uint64_t i = 0; i < n; ++i) t.values.push_back(element(t, static_cast<int64_t>(i)));
  }
  static float element(const ReadTensor& t, int64_t i) {
    if (t.type == 0) return load_element(t.data.data(), DType::f32, i);
    if (t.type == 1) return load_element(t.data.data(), DType::f16, i);
    if (t.type == 30) return load_element(t.data.data(), DType::bf16, i);
    if (t.type != 8) throw std::runtime_error("tensor type " + std::to_string(t.type));
    const char* block = t.data.data() + i / 32 * 34;
    return load_element(block, DType::f16, 0) * static_cast<signed char>(block[2 + i % 32]);
  }

  std::string file_;
  uint64_t at_ = 0;
};

}  // namespace gqa::test
