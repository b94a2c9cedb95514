// When convert() and expand() write nothing, and why.
#include <gtest/gtest.h>

#include <cmath>

#include "convert/place.h"
#include "gqa/convert.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::expect_error;
using test::folder_content;
using test::put_file;
using test::raw_tensor;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;

const std::string q_name = "model.layers.1.self_attn.q_proj.weight";

ConvertOptions to_heads(int64_t kv_heads, std::string grouping = "neighbour") {
  ConvertOptions options{.grouping = "neighbour", .merge = "mean"};
  options.kv_heads = kv_heads;
  options.grouping = std::move(grouping);
  return options;
}

/// Both verbs refuse this source with bad_data, and leave nothing behind.
void expect_refused(const TinyLlama& m, std::initializer_list<std::string_view> words) {
  const TempDir dir;
  write_tiny(dir / "in", m);
  expect_error(ErrorKind::bad_data, words, [&] { convert(dir / "in", dir / "out", to_heads(2)); });
  expect_error(ErrorKind::bad_data, words, [&] { expand(dir / "in", dir / "out", {}); });
  EXPECT_EQ(folder_content(dir.path()).size(), 1u);
}

TEST(ExportErrors, WeightsThatDoNotFitAreRefused) {
  TinyLlama m;
  m.others = {raw_tensor("lm_head.bias", {3}, {1, 2, 3})};
  expect_refused(m, {"model.safetensors", "lm_head.bias"});
  m.others = {raw_tensor("lm_head.weight", {19, 10}, std::vector<float>(190, 1.0f))};
  expect_refused(m, {"lm_head.weight", "differs", "tie_word_embeddings"});
  m.others = {raw_tensor("model.layers.0.self_attn.q_proj.bias", {48}, std::vector<float>(48))};
  expect_refused(m, {"model.layers.0.self_attn.q_proj.bias"});
}

/// The tiny model with one element changed.
void poke(const std::filesystem::path& dir, const std::string& name, int64_t at, float value) {
  auto tensors = test::tiny_tensors({});
  for (auto& tensor : tensors) {
    if (tensor.name == name) store_element(tensor.data.data(), DType::f32, at, value);
  }
  test::write_safetensors(dir / "model.safetensors", tensors);
}

TEST(ExportErrors, ValuesThatDoNotFitAreNamed) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  ConvertOptions options = to_heads(2, "random");
  options.output.dtype = DType::f16;
  const auto refused = [&](std::initializer_list<std::string_view> words) {
    expect_error(ErrorKind::bad_data, words, [&] { convert(dir / "in", dir / "out", options); });
    EXPECT_EQ(folder_content(dir.path()).size(), 1u);
  };
  poke(dir / "in", q_name, 77, -70000);
  refused({"model.safetensors", q_name, "[7, 7]", "-70000", "f16"});
  poke(dir / "in", "model.layers.1.self_attn.v_proj.weight", 0, 1e9f);
  refused({"model.safetensors", "model.layers.1.self_attn.v_proj.weight", "f16"});
  options.output.dtype.reset();
  for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                           "self_attn.o_proj", "mlp.up_proj", "input_layernorm"}) {
    const std::string name = fmt::format("model.layers.1.{}.weight", part);
    poke(dir / "in", name, 5, NAN);
    refused({"model.safetensors", name});
    poke(dir / "in", name, 5, -INFINITY);
    refused({"model.safetensors", name});
  }
}

TEST(ExportErrors, HeadsThatAMergeDropsAreCheckedToo) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  for (const char* part : {"k_proj", "v_proj"}) {
    const std::string name = fmt::format("model.layers.0.self_attn.{}.weight", part);
    poke(dir / "in", name, 479, NAN);  // the last element of the last head
    for (const char* merge : {"first", "random"}) {
      ConvertOptions options = to_heads(2);
      options.merge = merge;
      expect_error(ErrorKind::bad_data, {name, "finite", "[47, 9]"},
                   [&] { convert(dir / "in", dir / "out", options); });
    }
  }
}

TEST(ExportErrors, TokenizersThatDoNotFit) {
  const TempDir dir;
  write_tiny(dir / "in", {.vocab_size = 256});
  put_file(dir / "in" / "tokenizer.json", test::byte_tokenizer());
  const auto words = {std::string_view("tokenizer.json"), std::string_view("257"),
                      std::string_view("256")};
  expect_error(ErrorKind::bad_data, words, [&] { plan_convert(dir / "in", to_heads(2)); });
  expect_error(ErrorKind::bad_data, words, [&] { plan_expand(dir / "in", {}); });
  put_file(dir / "in" / "tokenizer.json", "{}");
  expect_error(ErrorKind::bad_data, {"tokenizer.json"},
               [&] { convert(dir / "in", dir / "out", to_heads(2)); });
  EXPECT_EQ(folder_content(dir.path()).size(), 1u);
}

TEST(ExportErrors, PlacesThatCanNotBe) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {});
  std::filesystem::create_directory_symlink(in, dir / "link");
  std::filesystem::create_directory(dir / "thesis");
  put_file(dir / "file", "x");
  const auto before = folder_content(dir.path());
  const auto refused = [&](const std::filesystem::path& out, bool force, std::string_view word) {
    ConvertOptions options = to_heads(2);
    options.output.force = force;
    expect_error(ErrorKind::cannot_create, {word}, [&] { convert(in, out, options); });
    EXPECT_EQ(folder_content(dir.path()), before);
  };
  refused(in, true, "is the source itself");
  refused(in.string() + "/", true, "is the source itself");
  refused(in / ".." / "in", true, "is the source itself");
  refused(dir / "link", true, "is the source itself");
  refused(in / "out", false, "is inside the source");
  refused(dir.path(), true, "contains the source");
  refused("/", true, "contains the source");
  refused("", true, "name");
  refused(dir / "thesis", true, "thesis");
  refused(dir / "file", true, "file");
  refused(dir / "file" / "out", false, "file");
  refused(dir / "none" / "out", false, "none");
  EXPECT_EQ(folder_content(in).size(), 2u);
}

TEST(ExportErrors, ReplacesAModelOnlyByForce) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  ConvertOptions options = to_heads(2);
  convert(dir / "in", dir / "out", options);
  options.kv_heads = 4;
  expect_error(ErrorKind::cannot_create, {"out"},
               [&] { convert(dir / "in", dir / "out", options); });
  EXPECT_EQ(load_config(dir / "out").kv_heads[0], 2);
  options.output.force = true;
  convert(dir / "in", (dir / "out").string() + "/", options);
  EXPECT_EQ(load_config(dir / "out").kv_heads[0], 4);
  EXPECT_EQ(folder_content(dir.path()).size(), 2u);
}

TEST(ExportErrors, TooFullADisk) {
  const TempDir dir;
  EXPECT_NO_THROW(check_free_space(dir / "out", 1));
  expect_error(ErrorKind::cannot_create, {"4611686018427387904 bytes needed", " free"},
               [&] { check_free_space(dir / "out", int64_t{1} << 62); });
}

TEST(ExportErrors, OptionsThatDoNotFit) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  expect_error(ErrorKind::usage, {"kv_heads 3", "8 KV heads", "1, 2, 4, 8"},
               [&] { plan_convert(dir / "in", to_heads(3)); });
  ConvertOptions options = to_heads(2);
  options.merge = "maen";
  expect_error(ErrorKind::usage, {"maen", "mean, first, random"},
               [&] { plan_convert(dir / "in", options); });
  expect_error(ErrorKind::no_input, {"none"}, [&] { plan_convert(dir / "none", to_heads(2)); });
}

}  // namespace
}  // namespace gqa
