// KV heads that differ between layers, and unequal groups: how config.json says them, and that the
// runner does nothing else where they are equal. model_test compares with double precision.
#include "gqa/model.h"
#include "io/json_value.h"
#include "support/config_case.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

class GroupsConfig : public Config {};

TEST_F(GroupsConfig, ReadsGroupSizesOfEachLayer) {
  const auto sizes = [](const Json& kv_heads, const Json& groups) {
    return Json{{"num_key_value_heads", kv_heads}, {"gqa_group_sizes", groups}};
  };
  // 3 KV heads do not divide 8 query heads, and need not.
  const ModelConfig c = load(sizes({3, 2, 2}, {{1, 2, 5}, nullptr, {4, 4}}));
  EXPECT_EQ(c.kv_heads, (std::vector<int64_t>{3, 2, 2}));
  EXPECT_EQ(c.group_sizes, (std::vector<std::vector<int64_t>>{{1, 2, 5}, {}, {4, 4}}));
  EXPECT_EQ(c.sizes_of_groups(0), (std::vector<int64_t>{1, 2, 5}));
  EXPECT_EQ(c.sizes_of_groups(1), (std::vector<int64_t>{4, 4}));
  EXPECT_TRUE(c.has_unequal_groups());
  EXPECT_FALSE(c.is_uniform());
  const ModelConfig same = load(sizes(2, {{1, 7}, {1, 7}, {1, 7}}));
  EXPECT_EQ(same.kv_heads, (std::vector<int64_t>{2, 2, 2}));
  EXPECT_FALSE(same.is_uniform());
  const ModelConfig equal = load(sizes(2, {{4, 4}, nullptr, nullptr}));
  EXPECT_FALSE(equal.has_unequal_groups());
  EXPECT_TRUE(equal.is_uniform());
  EXPECT_TRUE(load(sizes(2, nullptr)).group_sizes.empty());
  EXPECT_FALSE(load(sizes({2, 2, 4}, nullptr)).is_uniform());
}

TEST_F(GroupsConfig, RefusesGroupSizesThatDoNotFit) {
  const auto refused = [&](const Json& groups, std::initializer_list<std::string_view> words) {
    expect_bad({{"num_key_value_heads", {2, 2, 3}}, {"gqa_group_sizes", groups}}, words);
  };
  const Json n = nullptr, good = {2, 3, 3};
  refused({n, n, {2, 3, 4}}, {"`gqa_group_sizes[2]`", "8 (num_attention_heads)", "got 9"});
  refused({{8}, n, good}, {"`gqa_group_sizes[0]`", "2 KV heads", "got 1 "});
  refused({{1, 1, 6}, n, good}, {"`gqa_group_sizes[0]`", "2 KV heads", "got 3 "});
  refused({{8, 0}, n, good}, {"`gqa_group_sizes[0][1]`", "from 1 to 8", "got 0"});
  refused({{9, -1}, n, good}, {"`gqa_group_sizes[0][0]`", "from 1 to 8", "got 9"});
  refused({{4.0, 4}, n, good}, {"`gqa_group_sizes[0][0]`", "integer", "4.0"});
  refused({n, good}, {"`gqa_group_sizes`", "3 layers", "got 2"});
  refused({n, Json::array(), good}, {"`gqa_group_sizes[1]`", "list of integers, or null", "[]"});
  refused({n, 2, good}, {"`gqa_group_sizes[1]`", "list of integers, or null", "got 2"});
  refused("x", {"`gqa_group_sizes`", "a list", "\"x\""});
  refused({n, n, n}, {"`num_key_value_heads`", "num_attention_heads (8)", "got 3"});
}

TEST_F(GroupsConfig, ReadsModelTypesOfOurOwn) {
  EXPECT_EQ(load({{"model_type", "gqa_llama"}, {"attention_bias", true}}).model_type, "llama");
  EXPECT_TRUE(load({{"model_type", "gqa_llama"}, {"attention_bias", true}}).attention_bias);
  const ModelConfig mistral = load({{"model_type", "gqa_mistral"}});
  EXPECT_EQ(mistral.model_type, "mistral");
  EXPECT_EQ(mistral.window, 4096);
  expect_bad({{"model_type", "gqa_qwen2"}}, {"`model_type`", "`gqa_qwen2`"});
  expect_bad({{"model_type", "gqa_"}}, {"`model_type`", "`gqa_`"});
}

TEST_F(GroupsConfig, RefusesOtherWaysToSayWhatLayersAre) {
  expect_bad({{"per_layer_config", {{"0", {{"num_key_value_heads", 2}}}}}},
             {"`per_layer_config`", "not supported", "num_key_value_heads"});
  EXPECT_NO_THROW(load({{"per_layer_config", nullptr}}));
  EXPECT_NO_THROW(load({{"per_layer_config", Json::object()}}));
}

/// Of 17 tokens.
std::vector<float> hidden_states(Context& context, const Model& model, KvDType dtype) {
  std::vector<int32_t> tokens(17);
  for (int i = 0; i < 17; ++i) tokens[static_cast<size_t>(i)] = (i * i * 7 + 1) % 19;
  KvCache cache = model.make_cache(dtype);
  const Model::Step step{cache.create(), tokens};
  std::vector<float> hidden;
  model.forward(context, cache, std::span(&step, 1), hidden);
  return hidden;
}

TEST(Groups, EqualGroupsThatAreSpelledOutChangeNoBit) {
  const test::TempDir dir;
  test::TinyLlama m{.layer_kv_heads = {2, 4}, .dtype = DType::bf16};
  const Model plain = Model::load(test::write_tiny(dir / "plain", m));
  m.group_sizes = {{4, 4}, {2, 2, 2, 2}};
  const Model spelled = Model::load(test::write_tiny(dir / "spelled", m));
  EXPECT_EQ(spelled.config().group_sizes, m.group_sizes);
  m.group_sizes = {{3, 5}, {2, 2, 2, 2}};
  const Model other = Model::load(test::write_tiny(dir / "other", m));
  Context context({.threads = 2});
  for (const KvDType dtype : {KvDType::f32, KvDType::int8}) {
    const auto bits = hidden_states(context, plain, dtype);
    EXPECT_EQ(hidden_states(context, spelled, dtype), bits);
    EXPECT_NE(hidden_states(context, other, dtype), bits);
  }
}

}  // namespace
}  // namespace gqa
