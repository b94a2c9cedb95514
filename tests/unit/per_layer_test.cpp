// Converting to, from and between models whose layers differ in KV heads, or whose groups are
// unequal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "convert/modelling_code.h"
#include "gqa/convert.h"
#include "gqa/inspect.h"
#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/naive_llama.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

using test::expect_error;
using test::folder_content;
using test::get_file;
using test::load_tensors;
using test::put_file;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;
using testing::HasSubstr;
using testing::Not;
using Sizes = std::vector<std::vector<int64_t>>;

/// Equal in a layer, but not as many in every layer.
const std::vector<HeadGroups> per_layer = {{{0, 5, 2, 3}, {7, 1, 6, 4}},
                                           {{7, 0}, {1, 6}, {2, 5}, {3, 4}}};
const std::vector<HeadGroups> unequal = {{{4}, {0, 5, 2, 3, 1}, {7, 6}},
                                         {{7, 0, 1}, {6, 2, 5, 3, 4}}};

ConvertOptions given(std::vector<HeadGroups> groups, bool may_be_unequal = false) {
  ConvertOptions options{
      .grouping = "manual", .merge = "mean", .explicit_groups = std::move(groups)};
  options.unequal = may_be_unequal;
  return options;
}

/// Logits of the folder's model, in double precision, as `m` says that it is.
std::vector<std::vector<double>> naive_logits(TinyLlama m, const std::filesystem::path& dir) {
  const ModelConfig config = load_config(dir);
  m.layer_kv_heads = config.kv_heads;
  m.group_sizes = config.group_sizes;
  return test::NaiveLlama(m, dir).logits({1, 5, 3, 18, 2, 2, 7});
}

TEST(PerLayer, TheResultFollowsFromTheGroups) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {});
  const ConvertPlan plan = plan_convert(in, given(per_layer)).plan();
  EXPECT_EQ(plan.groups, per_layer);
  EXPECT_EQ(plan.result.kv_heads, (std::vector<int64_t>{2, 4}));
  EXPECT_TRUE(plan.result.group_sizes.empty());
  EXPECT_EQ(plan.result_kv_bytes_per_token, 2 * (2 + 4) * 6 * 4);
  EXPECT_THAT(plan.notes, testing::Contains(HasSubstr("trust_remote_code")));
  const ConvertPlan other = plan_convert(in, given(unequal, true)).plan();
  EXPECT_EQ(other.result.kv_heads, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(other.result.group_sizes, (Sizes{{1, 5, 2}, {3, 5}}));
  // Given groups that are all equal are a plain model.
  const HeadGroups pairs = {{0, 1}, {2, 3}, {4, 5}, {6, 7}};
  const ConvertPlan plain = plan_convert(in, given({pairs, pairs}, true)).plan();
  EXPECT_TRUE(plain.result.is_uniform());
  EXPECT_THAT(plain.notes, Not(testing::Contains(HasSubstr("trust_remote_code"))));
}

TEST(PerLayer, KvHeadsMustMatchWhereGiven) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {});
  ConvertOptions options = given(per_layer);
  options.kv_heads = 2;
  expect_error(ErrorKind::usage, {"layer 1", "4 groups", "expected 2"},
               [&] { plan_convert(in, options); });
  options.kv_heads = -2;
  expect_error(ErrorKind::usage, {"-2"}, [&] { plan_convert(in, options); });
  options = given({unequal[0], unequal[0]}, true);
  options.kv_heads = 3;
  EXPECT_EQ(plan_convert(in, options).plan().result.kv_heads, (std::vector<int64_t>{3, 3}));
  expect_error(ErrorKind::usage, {"kv_heads 0"}, [&] { plan_convert(in, {}); });
}

TEST(PerLayer, UnequalGroupsHaveToBeAskedFor) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {});
  expect_error(ErrorKind::usage,
               {"explicit_groups", "layer 0", "group 0 has 1 heads", "unequal", "--unequal"},
               [&] { plan_convert(in, given(unequal)); });
  put_file(dir / "groups.json", "[[0,1,2],[3,4,5,6,7]]");
  ConvertOptions options{.grouping = "manual:" + (dir / "groups.json").string(), .merge = "mean"};
  expect_error(ErrorKind::bad_data, {"groups.json", "layer 0", "3 heads, expected 4", "--unequal"},
               [&] { plan_convert(in, options); });
  options.unequal = true;
  EXPECT_EQ(plan_convert(in, options).plan().result.group_sizes, (Sizes{{3, 5}, {3, 5}}));
  expect_error(ErrorKind::usage, {"neighbour", "equal", "manual:FILE", "similarity"}, [&] {
    plan_convert(in, {.kv_heads = 2, .grouping = "neighbour", .unequal = true});
  });
  expect_error(ErrorKind::usage, {"key-driven", "--unequal"},
               [&] { plan_convert(in, {.kv_heads = 2, .grouping = "key-driven"}); });
  // Searched ones: 3 heads of 8, which no equal groups can be.
  for (const char* grouping : {"similarity", "kmeans", "key-driven"}) {
    const auto plan =
        plan_convert(in, {.kv_heads = 3, .grouping = grouping, .unequal = true}).plan();
    EXPECT_EQ(plan.result.kv_heads, (std::vector<int64_t>{3, 3})) << grouping;
    EXPECT_TRUE(plan.result.has_unequal_groups()) << grouping;
  }
  expect_error(ErrorKind::usage, {"kv_heads", "1 to 8", "9"},
               [&] { plan_convert(in, {.kv_heads = 9, .unequal = true}); });
}

TEST(PerLayer, UnequalGroupsPartTheHeadsToo) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {});
  const auto refused = [&](const HeadGroups& groups, const char* why) {
    expect_error(ErrorKind::usage, {"layer 1", why}, [&] {
      plan_convert(in, given({unequal[0], groups}, true));
    });
  };
  refused({{0, 1, 2}, {3, 4, 5, 6}}, "head 7 is in no group");
  refused({{0, 1, 2, 3, 4, 5, 6, 7}, {}}, "group 1 is empty");
  refused({{0, 1, 2, 3}, {3, 4, 5, 6, 7}}, "head 3 is in group 0 and again in group 1");
  refused({{0, 1, 2, 3, 8}, {4, 5, 6, 7}}, "head 8");
  refused({}, "0 groups");
}

TEST(PerLayer, ExpandIsExact) {
  for (const auto& groups : {per_layer, unequal}) {
    const TinyLlama m{.tied_head = false, .attention_bias = true};
    const TempDir dir;
    convert(write_tiny(dir / "in", m), dir / "out", given(groups, true));
    expand(dir / "out", dir / "wide", {});
    EXPECT_EQ(load_config(dir / "wide").kv_heads, (std::vector<int64_t>{8, 8}));
    EXPECT_EQ(naive_logits(m, dir / "wide"), naive_logits(m, dir / "out"));
    // The groups of the expanded model are runs of equal heads: merging them changes no bit.
    std::vector<HeadGroups> runs;
    for (const auto& layer : groups) {
      HeadGroups in_order;
      int64_t h = 0;
      for (const auto& group : layer) {
        in_order.emplace_back();
        for (size_t i = 0; i < group.size(); ++i) in_order.back().push_back(h++);
      }
      runs.push_back(in_order);
    }
    convert(dir / "wide", dir / "again", given(runs, true));
    EXPECT_EQ(load_tensors(dir / "again"), load_tensors(dir / "out"));
    EXPECT_EQ(get_file(dir / "again" / "config.json"), get_file(dir / "out" / "config.json"));
  }
}

TEST(PerLayer, PermutedHeadsChangeNothing) {
  const TinyLlama m{
      .layer_kv_heads = {3, 4}, .group_sizes = {{1, 5, 2}, {}}, .attention_bias = true};
  const TempDir dir;
  const auto in = write_tiny(dir / "in", m);
  convert(in, dir / "out", given({{{2}, {0}, {1}}, {{3}, {1}, {0}, {2}}}));
  EXPECT_EQ(load_config(dir / "out").group_sizes, (Sizes{{2, 1, 5}, {}}));
  const auto before = naive_logits(m, in), after = naive_logits(m, dir / "out");
  for (size_t t = 0; t < before.size(); ++t) {
    for (size_t i = 0; i < before[t].size(); ++i) {
      // Sums of O in another order: 48 terms of double precision.
      EXPECT_NEAR(after[t][i], before[t][i], 1e-11);
    }
  }
  EXPECT_NE(load_tensors(in), load_tensors(dir / "out"));
}

TEST(PerLayer, GroupedSourcesMergeByKvHeads) {
  const TinyLlama m{.layer_kv_heads = {3, 4}, .group_sizes = {{1, 5, 2}, {}}};
  const TempDir dir;
  const auto in = write_tiny(dir / "in", m);
  const ConvertPlan plan = plan_convert(in, given({{{2, 0}, {1}}, {{1, 2, 3}, {0}}}, true)).plan();
  EXPECT_EQ(plan.result.group_sizes, (Sizes{{3, 5}, {6, 2}}));
  convert(in, dir / "out", given({{{2, 0}, {1}}, {{1, 2, 3}, {0}}}, true));
  const auto from = load_tensors(in), to = load_tensors(dir / "out");
  const std::vector<std::vector<int64_t>> order = {{6, 7, 0, 1, 2, 3, 4, 5},
                                                   {2, 3, 4, 5, 6, 7, 0, 1}};
  for (int64_t l = 0; l < 2; ++l) {
    const std::string name = fmt::format("model.layers.{}.self_attn.q_proj.weight", l);
    const size_t head = from.at(name).bytes.size() / 8;
    std::string expected;
    for (const int64_t h : order[l]) expected += from.at(name).bytes.substr(h * head, head);
    EXPECT_EQ(to.at(name).bytes, expected);
  }
  // An odd head out, merged down to one in every layer: a plain model again.
  EXPECT_TRUE(plan_convert(in, {.kv_heads = 1}).plan().result.is_uniform());
}

TEST(PerLayer, FoldersSayWhoCanRunThem) {
  for (const int64_t window : {0, 5}) {
    const TinyLlama m{.window = window, .extra = {{"architectures", {"Kept"}}}};
    const std::string family = window > 0 ? "mistral" : "llama";
    const std::string ours = window > 0 ? "GqaMistral" : "GqaLlama";
    const TempDir dir;
    convert(write_tiny(dir / "in", m), dir / "out", given(per_layer));
    Json config = read_json(dir / "out" / "config.json");
    EXPECT_EQ(config["model_type"], "gqa_" + family);
    EXPECT_EQ(config["architectures"], Json::array({ours + "ForCausalLM"}));
    EXPECT_EQ(config["auto_map"]["AutoConfig"], "modeling_gqa." + ours + "Config");
    EXPECT_EQ(config["auto_map"]["AutoModelForCausalLM"], "modeling_gqa." + ours + "ForCausalLM");
    EXPECT_EQ(config["num_key_value_heads"], Json({2, 4}));
    EXPECT_FALSE(config.contains("gqa_group_sizes"));
    EXPECT_EQ(get_file(dir / "out" / "modeling_gqa.py"), modelling_code());
    for (const char* word : {"class GqaLlamaForCausalLM(", "class GqaMistralForCausalLM("}) {
      EXPECT_THAT(std::string(modelling_code()), HasSubstr(word));
    }
    const std::string card = get_file(dir / "out" / "README.md");
    for (const char* word : {"with [2, 4] KV heads", "- custom_code", "trust_remote_code=True",
                             "| query heads of each KV head | 1 | [4, 2] |"}) {
      EXPECT_THAT(card, HasSubstr(word));
    }
    EXPECT_TRUE(verify(dir / "out").problems.empty());
    // Again one of the family's own.
    expand(dir / "out", dir / "wide", {});
    config = read_json(dir / "wide" / "config.json");
    EXPECT_EQ(config["model_type"], family);
    EXPECT_EQ(config["architectures"], Json::array({ours.substr(3) + "ForCausalLM"}));
    EXPECT_EQ(config["num_key_value_heads"], 8);
    EXPECT_FALSE(config.contains("auto_map"));
    EXPECT_FALSE(std::filesystem::exists(dir / "wide" / "modeling_gqa.py"));
    EXPECT_THAT(get_file(dir / "wide" / "README.md"), Not(HasSubstr("trust_remote_code")));
  }
}

TEST(PerLayer, AListStandsEvenForTheSameNumberOfUnequalGroups) {
  const TempDir dir;
  convert(write_tiny(dir / "in", {}), dir / "out", given({unequal[0], unequal[0]}, true));
  const Json config = read_json(dir / "out" / "config.json");
  EXPECT_EQ(config["model_type"], "gqa_llama");
  EXPECT_EQ(config["num_key_value_heads"], Json({3, 3}));
  EXPECT_EQ(config["gqa_group_sizes"], Json({{1, 5, 2}, {1, 5, 2}}));
  EXPECT_THAT(get_file(dir / "out" / "README.md"),
              HasSubstr("| query heads of each KV head | 1 | [1, 5, 2] |"));
  // Sizes that are equal need no code, and are not said.
  write_tiny(dir / "spelled", {.kv_heads = 2, .group_sizes = {{4, 4}, {4, 4}}});
  convert(dir / "spelled", dir / "plain", {.kv_heads = 2});
  EXPECT_EQ(read_json(dir / "plain" / "config.json")["model_type"], "llama");
  EXPECT_FALSE(read_json(dir / "plain" / "config.json").contains("gqa_group_sizes"));
}

TEST(PerLayer, RecipesGiveTheSameBytesAgain) {
  for (const auto& groups : {per_layer, unequal}) {
    const TempDir dir;
    const auto in = write_tiny(dir / "in", {.dtype = DType::f16});
    put_file(dir / "groups.json", Json(groups).dump());
    ConvertOptions options{.grouping = "manual:" + (dir / "groups.json").string(), .merge = "mean"};
    options.unequal = groups == unequal;
    convert(in, dir / "out", options);
    const ConvertOptions read = read_recipe(dir / "out" / "gqa_recipe.json", in);
    EXPECT_EQ(read.kv_heads, 0);
    EXPECT_EQ(read.unequal, options.unequal);
    EXPECT_EQ(read.explicit_groups, groups);
    convert(in, dir / "again", read);
    EXPECT_EQ(folder_content(dir / "again"), folder_content(dir / "out"));
  }
}

TEST(PerLayer, RecipesAreChecked) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {});
  convert(in, dir / "out", given(unequal, true));
  const Json good = read_json(dir / "out" / "gqa_recipe.json");
  const auto refused = [&](const char* at, const Json& value, std::string_view word) {
    Json bad = good;
    bad[Json::json_pointer(at)] = value;
    put_file(dir / "bad.json", bad.dump());
    expect_error(ErrorKind::bad_data, {"bad.json", word},
                 [&] { read_recipe(dir / "bad.json", in); });
  };
  refused("/options/unequal", false, "unequal");
  refused("/options/unequal", 1, "true or false");
  refused("/options/kv_heads", 3, "layer 1");
  refused("/options/grouping", "neighbour", "kv_heads");
}

}  // namespace
}  // namespace gqa
