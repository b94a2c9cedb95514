// What verify() finds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "gqa/convert.h"
#include "gqa/inspect.h"
#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::expect_error;
using test::get_file;
using test::put_file;
using test::raw_tensor;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// A sound result of convert().
std::filesystem::path converted(const TempDir& dir) {
  write_tiny(dir / "in", {.vocab_size = 257});
  put_file(dir / "in" / "tokenizer.json", test::byte_tokenizer());
  convert(dir / "in", dir / "out", {.kv_heads = 2});
  return dir / "out";
}

TEST(Verify, SoundFolders) {
  const TempDir dir;
  const Verification found = verify(converted(dir));
  EXPECT_THAT(found.problems, IsEmpty());
  EXPECT_EQ(found.checks.size(), 6u);
  EXPECT_THAT(found.checks, Contains(HasSubstr("all 4 files")));
  EXPECT_EQ(verify(dir / "in").checks.size(), 5u);
  std::filesystem::remove(dir / "in" / "tokenizer.json");
  EXPECT_THAT(verify(dir / "in").problems, IsEmpty());
}

TEST(Verify, EveryByteCounts) {
  const TempDir dir;
  const auto out = converted(dir);
  for (const char* name : {"config.json", "model.safetensors", "README.md", "tokenizer.json"}) {
    const std::string good = get_file(out / name);
    std::string bad = good;
    // The weights' last byte stays finite when its lowest mantissa byte changes.
    const size_t at = std::string_view(name) == "model.safetensors" ? bad.size() - 4 : bad.size();
    if (at < bad.size()) {
      bad[at] = static_cast<char>(bad[at] ^ 1);
    } else {
      bad += " ";
    }
    put_file(out / name, bad);
    EXPECT_THAT(verify(out).problems, ElementsAre(AllOf(HasSubstr(name), HasSubstr("SHA-256"))));
    put_file(out / name, good);
  }
  std::filesystem::remove(out / "README.md");
  EXPECT_THAT(verify(out).problems,
              ElementsAre(AllOf(HasSubstr("README.md"), HasSubstr("missing"))));
  put_file(out / "gqa_recipe.json", "{");
  EXPECT_THAT(verify(out).problems, ElementsAre(HasSubstr("gqa_recipe.json")));
}

TEST(Verify, FindsAllProblemsAtOnce) {
  const TempDir dir;
  const TinyLlama m{.vocab_size = 200, .others = {raw_tensor("stray", {1}, {1})}};
  write_tiny(dir / "in", m);
  auto tensors = test::tiny_tensors(m);
  store_element(tensors[0].data.data(), DType::f32, 3, NAN);
  tensors[1].name = "renamed";
  tensors[2] = raw_tensor(tensors[2].name, {14, 10}, std::vector<float>(140));
  test::write_safetensors(dir / "in" / "model.safetensors", tensors);
  put_file(dir / "in" / "tokenizer.json", test::byte_tokenizer());
  EXPECT_THAT(verify(dir / "in").problems,
              testing::UnorderedElementsAre(
                  AllOf(HasSubstr("model.embed_tokens.weight"), HasSubstr("[0, 3]")),
                  AllOf(HasSubstr("model.layers.0.input_layernorm.weight"), HasSubstr("missing")),
                  HasSubstr("renamed"), HasSubstr("stray"),
                  AllOf(HasSubstr("mlp.down_proj.weight"), HasSubstr("[14, 10]")),
                  AllOf(HasSubstr("tokenizer.json"), HasSubstr("257"))));
}

TEST(Verify, NamesTwentyBadTensorsAndCountsTheRest) {
  const TempDir dir;
  write_tiny(dir / "in", {.n_layers = 2});
  Json config = test::tiny_config({.n_layers = 5});
  put_file(dir / "in" / "config.json", config.dump());
  const auto problems = verify(dir / "in").problems;  // 3 layers of 9 tensors are missing
  EXPECT_EQ(problems.size(), 21u);
  EXPECT_THAT(problems.back(), HasSubstr("7 more"));
}

TEST(Verify, BrokenPartsDoNotHideOthers) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  put_file(dir / "in" / "config.json", "{}");
  put_file(dir / "in" / "model.safetensors", "x");
  EXPECT_THAT(verify(dir / "in").problems,
              ElementsAre(HasSubstr("config.json"), HasSubstr("model.safetensors")));
  for (const char* name : {"model.safetensors", "config.json"}) {
    std::filesystem::remove(dir / "in" / name);
    expect_error(ErrorKind::no_input, {name}, [&] { verify(dir / "in"); });
  }
  expect_error(ErrorKind::no_input, {"none"}, [&] { verify(dir / "none"); });
}

TEST(Verify, CanBeStopped) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  const Progress stop = [](std::string_view, int64_t, int64_t) {
    throw Error(ErrorKind::interrupted, "stopped");
  };
  expect_error(ErrorKind::interrupted, {"stopped"}, [&] { verify(dir / "in", stop); });
}

}  // namespace
}  // namespace gqa
