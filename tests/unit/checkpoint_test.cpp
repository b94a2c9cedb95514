#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/files.h"
#include "support/temp_dir.h"
#include "support/write_safetensors.h"

namespace gqa {
namespace {

using test::expect_error;
using test::put_file;
using test::raw_tensor;
using test::write_safetensors;

constexpr const char* single = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";
constexpr auto bad = ErrorKind::bad_data;

class CheckpointTest : public testing::Test {
 protected:
  void put_index(std::string_view weight_map) const {
    put_file(dir_ / index_name, fmt::format(R"({{"metadata":{{}},"weight_map":{}}})", weight_map));
  }
  /// a and c in one.safetensors, b in two.safetensors.
  void put_shards() const {
    write_safetensors(dir_ / "one.safetensors",
                      {raw_tensor("c", {2}, {1, 2}), raw_tensor("a", {1, 2}, {3, 4})});
    write_safetensors(dir_ / "two.safetensors", {raw_tensor("b", {1}, {5}, DType::bf16)});
  }
  void expect_open(ErrorKind kind, std::initializer_list<std::string_view> words) const {
    expect_error(kind, words, [&] { Checkpoint::open(dir_.path()); });
  }

  const test::TempDir dir_;
};

TEST_F(CheckpointTest, OpensASingleFile) {
  write_safetensors(dir_ / single, {raw_tensor("b", {2}, {1, 2}), raw_tensor("a", {1}, {3})});
  put_index("{}");  // not looked at: as in transformers, the single file comes first
  const Checkpoint checkpoint = Checkpoint::open(dir_.path());
  ASSERT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.tensors()[0]->name, "b");
  EXPECT_EQ(checkpoint.at("a", {1}).elements, 1);
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  EXPECT_EQ(checkpoint.files(), (std::vector{dir_ / single}));
}

TEST_F(CheckpointTest, OpensShards) {
  put_shards();
  put_index(R"({"a":"one.safetensors","b":"two.safetensors","c":"one.safetensors"})");
  Checkpoint opened = Checkpoint::open(dir_.path());
  const Checkpoint checkpoint = std::move(opened);  // its tensors stay where they are
  ASSERT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.tensors()[0]->name, "c");
  EXPECT_EQ(checkpoint.tensors()[1]->name, "a");
  EXPECT_EQ(checkpoint.tensors()[2]->name, "b");
  const Tensor& b = checkpoint.at("b", {1});
  EXPECT_EQ(load_element(b.data, *b.dtype, 0), 5.0f);
  EXPECT_EQ(*b.file, dir_ / "two.safetensors");
  EXPECT_EQ(checkpoint.files(),
            (std::vector{dir_ / "one.safetensors", dir_ / "two.safetensors", dir_ / index_name}));
}

TEST_F(CheckpointTest, NamesWhatIsMissingOrOfAnotherShape) {
  write_safetensors(dir_ / single,
                    {raw_tensor("a", {2, 1}, {1, 2}), {"i", "I64", {1}, "12345678"}});
  const Checkpoint checkpoint = Checkpoint::open(dir_.path());
  expect_error(bad, {single, "`x`", "missing"}, [&] { checkpoint.at("x"); });
  expect_error(bad, {single, "`x`", "missing"}, [&] { checkpoint.at("x", {1}); });
  expect_error(bad, {single, "`a`", "[1, 2]", "F32 [2, 1]"}, [&] { checkpoint.at("a", {1, 2}); });
  expect_error(bad, {single, "`a`", "[2]"}, [&] { checkpoint.at("a", {2}); });
  expect_error(bad, {single, "`i`", "BF16", "I64"}, [&] { checkpoint.at("i", {1}); });
  EXPECT_EQ(checkpoint.at("i").bytes, 8);
}

TEST_F(CheckpointTest, RefusesAFolderThatIsNone) {
  expect_error(ErrorKind::no_input, {"nowhere", "no such folder"},
               [&] { Checkpoint::open(dir_ / "nowhere"); });
  put_file(dir_ / "file", "");
  expect_error(ErrorKind::no_input, {"file", "expected a model folder"},
               [&] { Checkpoint::open(dir_ / "file"); });
  expect_open(ErrorKind::no_input, {dir_.path().string(), "no weights", single, index_name});
}

TEST_F(CheckpointTest, RefusesPickledWeights) {
  for (const char* name : {"pytorch_model.bin.index.json", "pytorch_model.bin"}) {
    put_file(dir_ / name, "{}");
    expect_open(bad, {name, "pickled", "save_pretrained(..., safe_serialization=True)"});
  }
  write_safetensors(dir_ / single, {});
  EXPECT_NO_THROW(Checkpoint::open(dir_.path()));
}

TEST_F(CheckpointTest, RefusesABadIndex) {
  put_shards();
  put_file(dir_ / index_name, "{");
  expect_open(bad, {index_name, "not valid JSON"});
  put_file(dir_ / index_name, "[]");
  expect_open(bad, {index_name, "object"});
  put_file(dir_ / index_name, "{}");
  expect_open(bad, {index_name, "`weight_map`", "missing"});
  put_index("[]");
  expect_open(bad, {index_name, "`weight_map`", "object"});
  put_index("{}");
  expect_open(bad, {index_name, "`weight_map`", "none"});
  put_index(R"({"a":1})");
  expect_open(bad, {index_name, "`weight_map.a`", "got 1"});
}

TEST_F(CheckpointTest, RefusesAnIndexThatLeadsElsewhere) {
  put_shards();
  std::filesystem::create_directory(dir_ / "sub");
  write_safetensors(dir_ / "sub/x.safetensors", {raw_tensor("a", {1}, {1})});
  for (const char* name :
       {"/etc/x.safetensors", "../x.safetensors", "sub/x.safetensors", "..", ".", "", "sub",
        "sub\\\\x.safetensors", "pytorch_model.bin", "x\\u0000.safetensors", "./one.safetensors"}) {
    SCOPED_TRACE(name);
    put_index(fmt::format(R"({{"a":"{}"}})", name));
    expect_open(bad, {index_name, "`weight_map.a`", "same folder"});
  }
}

TEST_F(CheckpointTest, RefusesShardsThatDifferFromTheIndex) {
  put_shards();
  put_index(R"({"a":"one.safetensors","c":"one.safetensors","b":"three.safetensors"})");
  expect_open(ErrorKind::no_input, {"three.safetensors", index_name});
  put_index(R"({"a":"one.safetensors","c":"one.safetensors","b":"one.safetensors"})");
  expect_open(bad, {index_name, "`b`", "one.safetensors", "none"});
  put_index(R"({"a":"two.safetensors","c":"one.safetensors","b":"two.safetensors"})");
  expect_open(bad, {index_name, "`a`", "expected in two.safetensors", "one.safetensors"});
  put_index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  expect_open(bad, {"one.safetensors", "`c`", "not listed", index_name});
  put_index(R"({"a":"one.safetensors","c":"one.safetensors","b":"two.safetensors"})");
  write_safetensors(dir_ / "two.safetensors",
                    {raw_tensor("b", {1}, {5}), raw_tensor("a", {1}, {5})});
  expect_open(bad, {"two.safetensors", "`a`", "also in", "one.safetensors"});
  put_file(dir_ / "two.safetensors", "junk and more");
  expect_open(bad, {"two.safetensors"});
}

TEST_F(CheckpointTest, RefusesQuantisedWeights) {
  const std::pair<test::RawTensor, const char*> cases[] = {
      {{"l.q_proj.weight", "F8_E4M3", {1}, "x"}, "FP8"},
      {{"l.q_proj.weight", "F8_E5M2", {1}, "x"}, "FP8"},
      {raw_tensor("l.q_proj.weight_scale_inv", {1}, {1}), "FP8"},
      {{"l.q_proj.qweight", "I32", {1}, "1234"}, "AWQ or GPTQ"},
      {{"l.q_proj.qzeros", "I32", {1}, "1234"}, "AWQ or GPTQ"},
      {raw_tensor("l.q_proj.scales", {1}, {1}, DType::f16), "AWQ or GPTQ"},
      {{"l.q_proj.g_idx", "I32", {1}, "1234"}, "AWQ or GPTQ"},
      {{"l.q_proj.weight_packed", "I32", {1}, "1234"}, "compressed-tensors"},
      {raw_tensor("l.q_proj.weight_scale", {1}, {1}), "compressed-tensors"},
      {raw_tensor("l.q_proj.weight.absmax", {1}, {1}), "bitsandbytes"},
      {{"l.q_proj.weight.quant_state.bitsandbytes__nf4", "U8", {1}, "x"}, "bitsandbytes"},
      {raw_tensor("l.q_proj.SCB", {1}, {1}), "bitsandbytes"}};
  for (const auto& [tensor, scheme] : cases) {
    write_safetensors(dir_ / single, {tensor});
    expect_open(bad, {single, tensor.name, scheme, "quantised"});
  }
  write_safetensors(dir_ / single,
                    {raw_tensor("scales", {1}, {1}), raw_tensor("a.scales_b", {1}, {1})});
  EXPECT_NO_THROW(Checkpoint::open(dir_.path()));
}

}  // namespace
}  // namespace gqa
