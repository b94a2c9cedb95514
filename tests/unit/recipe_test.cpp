// Doing a conversion again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gqa/convert.h"
#include "io/json_value.h"
#include "io/sha256.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::expect_error;
using test::folder_content;
using test::get_file;
using test::put_file;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;
using testing::HasSubstr;
using testing::Not;

constexpr const char* recipe_file = "gqa_recipe.json";

std::vector<ConvertOptions> many_options(const TempDir& dir) {
  const std::vector<HeadGroups> groups = {{{2, 0}, {3, 1}}, {{1, 3}, {0, 2}}};
  put_file(dir / "groups.json", Json(groups).dump());
  std::vector<ConvertOptions> many(4);
  many[0] = {.kv_heads = 2};
  many[1] = {.kv_heads = 1, .grouping = "random", .merge = "first", .seed = ~uint64_t{0}};
  many[1].output = {.dtype = DType::bf16, .max_shard_bytes = 3000};
  many[2] = {.kv_heads = 2, .merge = "random", .seed = 3};
  many[3] = {.kv_heads = 2, .grouping = "manual:" + (dir / "groups.json").string()};
  return many;
}

TEST(Recipe, GivesTheSameBytesAgain) {
  for (size_t i = 0; i < 4; ++i) {
    const TempDir dir;
    const TinyLlama m{.kv_heads = 4, .attention_bias = true, .dtype = DType::f16, .shards = 2};
    const auto in = write_tiny(dir / "in", m);
    const ConvertOptions options = many_options(dir)[i];
    convert(in, dir / "out", options);
    const auto first = folder_content(dir / "out");
    convert(in, dir / "again", options);
    EXPECT_EQ(folder_content(dir / "again"), first);

    std::filesystem::remove(dir / "groups.json");
    const ConvertOptions read = read_recipe(dir / "out" / recipe_file, in);
    convert(in, dir / "reread", read);
    EXPECT_EQ(folder_content(dir / "reread"), first);
    EXPECT_EQ(read.kv_heads, options.kv_heads);
    EXPECT_EQ(read.merge, options.merge);
    EXPECT_EQ(read.seed, options.seed);
    EXPECT_EQ(read.output.dtype, options.output.dtype);
    EXPECT_EQ(read.output.max_shard_bytes, options.output.max_shard_bytes);
    EXPECT_EQ(read.explicit_groups.empty(), i != 3);
    for (const char* name : {recipe_file, "README.md"}) {
      EXPECT_THAT(first.at(name), Not(HasSubstr(dir.path().string()))) << name;
    }
  }
}

TEST(Recipe, KnowsEveryFile) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {.shards = 2});
  put_file(dir / "in" / "LICENSE", "Free.");
  expand(in, dir / "out", {});
  const Json recipe = Json::parse(get_file(dir / "out" / recipe_file));
  EXPECT_EQ(recipe["verb"], "expand");
  std::map<std::string, std::string> expected;
  for (const auto& [name, content] : folder_content(dir / "out")) {
    if (name != recipe_file) expected[name] = sha256_of_file(dir / "out" / name);
  }
  EXPECT_TRUE(expected.contains("LICENSE"));
  EXPECT_EQ(recipe["output"]["sha256"], Json(expected));
  expected.clear();
  for (const auto& [name, content] : folder_content(in)) {
    if (name != "LICENSE") expected[name] = sha256_of_file(in / name);
  }
  EXPECT_EQ(expected.size(), 4u);  // config, index, two shards
  EXPECT_EQ(recipe["source"]["sha256"], Json(expected));
  EXPECT_EQ(recipe["source"]["name"], "in");
  expect_error(ErrorKind::bad_data, {recipe_file, "verb", "convert", "expand"},
               [&] { read_recipe(dir / "out" / recipe_file, in); });
}

TEST(Recipe, IsForItsSourceAlone) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {});
  convert(in, dir / "out", {.kv_heads = 2});
  const auto recipe = dir / "out" / recipe_file;
  EXPECT_EQ(read_recipe(recipe, in).kv_heads, 2);
  const auto refused = [&](const TinyLlama& m, const char* file) {
    std::filesystem::remove_all(dir / "other");
    write_tiny(dir / "other", m);
    expect_error(ErrorKind::bad_data, {"other", file, recipe_file},
                 [&] { read_recipe(recipe, dir / "other"); });
  };
  refused({.seed = 2}, "model.safetensors");
  refused({.extra = {{"x", 1}}}, "config.json");
  refused({.shards = 2}, "model-00001-of-00002.safetensors");
  expect_error(ErrorKind::no_input, {"none"}, [&] { read_recipe(recipe, dir / "none"); });
  expect_error(ErrorKind::no_input, {"none.json"}, [&] { read_recipe(dir / "none.json", in); });
}

TEST(Recipe, IsCheckedFieldByField) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {});
  ConvertOptions manual{.kv_heads = 4, .grouping = "manual"};
  manual.explicit_groups.assign(2, {{0, 7}, {1, 6}, {2, 5}, {3, 4}});
  convert(in, dir / "out", manual);
  const Json good = Json::parse(get_file(dir / "out" / recipe_file));
  const auto refused = [&](const char* at, const Json& value, std::string_view word) {
    Json bad = good;
    bad[Json::json_pointer(at)] = value;
    put_file(dir / "bad.json", bad.dump());
    expect_error(ErrorKind::bad_data, {"bad.json", word},
                 [&] { read_recipe(dir / "bad.json", in); });
  };
  refused("/version", 2, "version");
  refused("/version", nullptr, "version");
  refused("/verb", 1, "verb");
  refused("/options/kv_heads", 0, "kv_heads");
  refused("/options/kv_heads", 3, "groups");
  refused("/options/grouping", "manual:/etc/passwd", "grouping");
  refused("/options/grouping", "psychic", "psychic");
  refused("/options/merge", "psychic", "psychic");
  refused("/options/seed", -1, "seed");
  refused("/options/seed", 1.5, "seed");
  refused("/options/dtype", "f8", "f8");
  refused("/options/max_shard_bytes", 0, "max_shard_bytes");
  refused("/groups", Json::array(), "groups");
  refused("/groups/1/0/0", 1, "layer 1");
  refused("/source/sha256", Json::array(), "sha256");
  refused("/source/sha256/config.json", "12", "config.json");
  refused("/source/sha256/..~1x", good["source"]["sha256"]["config.json"], "../x");
  refused("/source/sha256/gone", good["source"]["sha256"]["config.json"], "gone");
}

}  // namespace
}  // namespace gqa
