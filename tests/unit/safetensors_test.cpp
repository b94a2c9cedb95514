#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "io/checkpoint.h"
#include "io/safetensors_dtype.h"
#include "support/expect_error.h"
#include "support/files.h"
#include "support/temp_dir.h"
#include "support/write_safetensors.h"

namespace gqa {
namespace {

using test::expect_error;
using test::raw_safetensors;
using test::raw_tensor;

class Safetensors : public testing::Test {
 protected:
  std::filesystem::path put(std::string_view bytes) const {
    std::filesystem::remove(file_);  // some file systems sync what is overwritten
    test::put_file(file_, bytes);
    return file_;
  }
  /// Expects an error that names the file and holds these words.
  void expect_bad(std::string_view bytes, std::initializer_list<std::string_view> words) const {
    const std::string message =
        expect_error(ErrorKind::bad_data, words, [&] { SafetensorsFile file(put(bytes)); });
    EXPECT_NE(message.find(file_.string()), std::string::npos) << message;
  }

  const test::TempDir dir_;
  const std::filesystem::path file_ = dir_ / "some.safetensors";
};

TEST_F(Safetensors, ReadsNamesTypesShapesAndData) {
  // Offsets out of the order of the header, a scalar, an empty tensor, an unaligned one.
  const std::string header =
      R"({"b":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11]},)"
      R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"__metadata__":{"k":"v"},)"
      R"("e":{"dtype":"BF16","shape":[0,7],"data_offsets":[3,3]},)"
      R"("s":{"dtype":"F16","shape":[],"data_offsets":[11,13]}}   )";
  const float values[] = {1.5f, -2.0f};
  std::string data = "xyz" + std::string(reinterpret_cast<const char*>(values), 8) + "\x01\x3c";
  const SafetensorsFile file(put(raw_safetensors(header, data)));
  ASSERT_EQ(file.tensors().size(), 4u);
  const auto& [a, e, b, s] =
      std::tie(file.tensors()[0], file.tensors()[1], file.tensors()[2], file.tensors()[3]);
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.dtype_name, "U8");
  EXPECT_FALSE(a.dtype);
  EXPECT_EQ(static_cast<char>(a.data[2]), 'z');
  EXPECT_EQ(e.name, "e");
  EXPECT_EQ(e.dtype, DType::bf16);
  EXPECT_EQ(e.elements, 0);
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(b.bytes, 8);
  EXPECT_EQ(load_element(b.data, *b.dtype, 1), -2.0f);
  EXPECT_EQ(*b.file, file_);
  EXPECT_EQ(s.elements, 1);
  EXPECT_EQ(load_element(s.data, *s.dtype, 0), 1.0f + 0x1p-10f);
}

TEST_F(Safetensors, ReadsEveryType) {
  const std::pair<const char*, int> types[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  for (const auto& [name, bytes] : types) {
    const std::string data(static_cast<size_t>(3 * bytes), '\0');
    const SafetensorsFile file(put(test::safetensors_bytes({{"t", name, {3}, data}})));
    EXPECT_EQ(file.tensors().at(0).bytes, 3 * bytes) << name;
  }
}

TEST(SafetensorsName, IsTheOneThatReadsBackAsTheType) {
  for (const DType t : {DType::f32, DType::f16, DType::bf16}) {
    const SafetensorsDType* found = find_safetensors_dtype(safetensors_name(t));
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->dtype, t);
    EXPECT_EQ(found->bytes, dtype_bytes(t));
  }
}

TEST_F(Safetensors, RefusesAFileThatIsNotThereOrNone) {
  expect_error(ErrorKind::no_input, {"none.safetensors"},
               [&] { SafetensorsFile file(dir_ / "none.safetensors"); });
  expect_error(ErrorKind::no_input, {dir_.path().string()},
               [&] { SafetensorsFile file(dir_.path()); });
}

TEST_F(Safetensors, RefusesABadStart) {
  expect_bad("", {"at least 8 bytes", "got 0"});
  expect_bad("1234567", {"at least 8 bytes", "got 7"});
  expect_bad(raw_safetensors(std::string(64, ' '), ""), {"`{`"});
  expect_bad(raw_safetensors("", ""), {"`{`"});
  expect_bad(raw_safetensors("{}", "").substr(0, 9), {"header of 2 bytes", "got 1"});
  expect_bad("\xff\xff\xff\xff\xff\xff\xff\xff{}", {"100000000", "18446744073709551615"});
  expect_bad(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10), {"100000000", "got 100000001"});
  expect_bad(raw_safetensors("{\"a\":", ""), {"not valid JSON"});
  expect_bad(raw_safetensors("{}\x01", ""), {"not valid JSON"});
}

/// A header of one tensor `t` with this entry, over 8 bytes of data.
std::string one_entry(std::string_view entry) {
  return raw_safetensors(fmt::format(R"({{"t":{}}})", entry), "12345678");
}

TEST_F(Safetensors, RefusesABadEntry) {
  const auto entry = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return one_entry(
        fmt::format(R"({{"dtype":{},"shape":{},"data_offsets":{}}})", dtype, shape, offsets));
  };
  EXPECT_NO_THROW(SafetensorsFile(put(entry("\"F32\"", "[2]", "[0,8]"))));
  expect_bad(one_entry("3"), {"`t`", "object", "3"});
  expect_bad(one_entry("null"), {"`t`", "object", "null"});
  expect_bad(one_entry(R"({"shape":[2],"data_offsets":[0,8]})"), {"`t.dtype`", "missing"});
  expect_bad(one_entry(R"({"dtype":"F32","data_offsets":[0,8]})"), {"`t.shape`", "missing"});
  expect_bad(one_entry(R"({"dtype":"F32","shape":[2]})"), {"`t.data_offsets`", "missing"});
  expect_bad(entry("\"F4\"", "[2]", "[0,8]"), {"`t.dtype`", "BF16", "\"F4\""});
  expect_bad(entry("7", "[2]", "[0,8]"), {"`t.dtype`", "string", "7"});
  expect_bad(entry("\"F32\"", "2", "[0,8]"), {"`t.shape`", "list", "2"});
  std::string ones = "[2";
  for (int i = 0; i < 64; ++i) ones += ",1";
  expect_bad(entry("\"F32\"", ones + "]", "[0,8]"), {"`t.shape`", "at most 64"});
  expect_bad(entry("\"F32\"", "[-2]", "[0,8]"), {"`t.shape[0]`", ">= 0", "-2"});
  expect_bad(entry("\"F32\"", "[2.0]", "[0,8]"), {"`t.shape[0]`", "integer", "2.0"});
  expect_bad(entry("\"F32\"", "[18446744073709551615]", "[0,8]"),
             {"`t.shape[0]`", "18446744073709551615"});
  expect_bad(entry("\"F32\"", "[4294967296,4294967296]", "[0,8]"),
             {"`t.shape`", "2^63", "[4294967296, 4294967296]"});
  expect_bad(entry("\"F32\"", "[4611686018427387904]", "[0,8]"), {"`t.shape`", "2^63"});
  expect_bad(entry("\"F32\"", "[2]", "8"), {"`t.data_offsets`", "list", "8"});
  expect_bad(entry("\"F32\"", "[2]", "[0]"), {"`t.data_offsets`", "[0]"});
  expect_bad(entry("\"F32\"", "[2]", "[0,4,8]"), {"`t.data_offsets`", "[0, 4, 8]"});
  expect_bad(entry("\"F32\"", "[2]", "[8,0]"), {"`t.data_offsets`", "[8, 0]"});
  expect_bad(entry("\"F32\"", "[2]", "[-8,0]"), {"`t.data_offsets[0]`", "-8"});
  expect_bad(entry("\"F32\"", "[3]", "[0,12]"), {"`t.data_offsets`", "8 bytes", "[0, 12]"});
  expect_bad(entry("\"F32\"", "[2]", "[0,7]"), {"`t`", "8 bytes", "F32 [2]", "got 7"});
  expect_bad(entry("\"F16\"", "[2]", "[0,8]"), {"`t`", "4 bytes", "F16 [2]", "got 8"});
}

TEST_F(Safetensors, RefusesBadMetadata) {
  const auto with = [](std::string_view metadata) {
    return raw_safetensors(fmt::format(R"({{"__metadata__":{}}})", metadata), "");
  };
  EXPECT_TRUE(SafetensorsFile(put(with("{}"))).tensors().empty());
  expect_bad(with("[]"), {"`__metadata__`", "object"});
  expect_bad(with(R"({"a":"b","c":1})"), {"`__metadata__.c`", "string"});
  expect_bad(with(R"({"c":null})"), {"`__metadata__.c`", "string"});
}

TEST_F(Safetensors, RefusesANameGivenTwice) {
  const std::string entry = R"("t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  expect_bad(raw_safetensors("{" + entry + "," + entry + "}", "1234"), {"`t`", "twice"});
}

TEST_F(Safetensors, RefusesOverlapsGapsAndWhatIsLeftOver) {
  const auto two = [](int a, int b, int c, int d) {
    return raw_safetensors(
        fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                    R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                    b - a, a, b, d - c, c, d),
        "12345678");
  };
  EXPECT_NO_THROW(SafetensorsFile(put(two(0, 4, 4, 8))));
  EXPECT_NO_THROW(SafetensorsFile(put(two(4, 8, 0, 4))));
  expect_bad(two(0, 5, 4, 8), {"`b`", "offset 5", "after a", "got 4", "overlap"});
  expect_bad(two(0, 8, 0, 8), {"overlap"});
  expect_bad(two(0, 8, 2, 2), {"`b`", "overlap"});  // empty, but inside another
  expect_bad(two(0, 3, 4, 8), {"`b`", "offset 3", "got 4", "gap"});
  expect_bad(two(1, 4, 4, 8), {"`a`", "offset 0", "got 1", "gap"});
  expect_bad(two(0, 4, 4, 7), {"7 bytes", "got 8"});
  expect_bad(raw_safetensors("{}", "1"), {"0 bytes", "got 1"});
}

TEST_F(Safetensors, AnyDamageGivesAnErrorOrASoundFile) {
  const std::string sound =
      test::safetensors_bytes({raw_tensor("model.a", {2, 3}, {1, 2, 3, 4, 5, 6}),
                               raw_tensor("model.b", {5}, {1, 2, 3, 4, 5}, DType::bf16),
                               {"empty", "I64", {0, 4}, ""}});
  int sound_ones = 0;
  const auto read = [&](const std::string& bytes) {
    try {
      const SafetensorsFile file(put(bytes));
      ++sound_ones;
      int64_t covered = 0;
      for (const Tensor& tensor : file.tensors()) {
        ASSERT_GE(tensor.data, file.mapped().bytes().data());
        ASSERT_LE(tensor.data + tensor.bytes, file.mapped().bytes().data() + bytes.size());
        covered += tensor.bytes;
      }
      ASSERT_LE(covered, std::ssize(bytes));
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::bad_data) << error.what();
    }
  };
  for (size_t size = 0; size < sound.size(); ++size) read(sound.substr(0, size));
  EXPECT_EQ(sound_ones, 0);
  std::mt19937 random(1);
  for (size_t at = 0; at < sound.size(); ++at) {
    for (const int bit : {0, 3, 7, -1}) {
      std::string bytes = sound;
      bytes[at] =
          static_cast<char>(bit < 0 ? random() : static_cast<unsigned>(bytes[at]) ^ 1u << bit);
      read(bytes);
    }
  }
  EXPECT_GT(sound_ones, 50);  // flips in names and data do no harm
}

TEST_F(Safetensors, CheckFiniteFindsTheElement) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType t : {DType::f32, DType::f16, DType::bf16}) {
    for (const float bad : {inf, -inf, nan}) {
      for (const size_t at :
           {size_t{0}, size_t{8191}, size_t{8192}, size_t{20'000}, size_t{29'999}}) {
        const float largest = t == DType::f16 ? 65504.0f : 0x1.fep127f;
        std::vector<float> values(30'000, largest);
        const test::RawTensor odd{"odd", "U8", {1}, "x"};  // what follows it is unaligned
        put(test::safetensors_bytes({odd, raw_tensor("w", {3, 10'000}, values, t)}));
        EXPECT_NO_THROW(check_finite(SafetensorsFile(file_).tensors()[1]));
        values[at] = bad;
        put(test::safetensors_bytes({odd, raw_tensor("w", {3, 10'000}, values, t)}));
        const SafetensorsFile file(file_);
        EXPECT_NO_THROW(check_finite(file.tensors()[0]));
        const std::string place = fmt::format("at [{}, {}]", at / 10'000, at % 10'000);
        expect_error(ErrorKind::bad_data,
                     {file_.string(), "`w`", place, std::isnan(bad) ? "nan" : "inf"},
                     [&] { check_finite(file.tensors()[1]); });
      }
    }
  }
}

TEST_F(Safetensors, CheckFiniteLooksAtEveryElement) {
  Tensor tensor;
  tensor.name = "w";
  tensor.dtype = DType::bf16;
  tensor.elements = 2 * 8192 + 5;
  tensor.bytes = 2 * tensor.elements;
  tensor.shape = {tensor.elements};
  tensor.file = &file_;
  std::vector<uint16_t> values(static_cast<size_t>(tensor.elements));
  tensor.data = reinterpret_cast<const std::byte*>(values.data());
  int64_t found = 0;
  for (uint16_t& value : values) {
    value = 0x7f80;  // infinity
    try {
      check_finite(tensor);
    } catch (const Error&) {
      ++found;
    }
    value = 0;
  }
  EXPECT_EQ(found, tensor.elements);
}

}  // namespace
}  // namespace gqa
