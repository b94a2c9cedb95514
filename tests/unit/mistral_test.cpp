// What Mistral has of its own.
#include "io/json_value.h"
#include "support/config_case.h"

namespace gqa {
namespace {

class Mistral : public Config {};

TEST_F(Mistral, TakesTransformersDefaults) {
  const ModelConfig c = load({{"model_type", "mistral"}, {"num_attention_heads", 16}});
  EXPECT_EQ(c.model_type, "mistral");
  EXPECT_EQ(c.kv_heads, (std::vector<int64_t>{8, 8, 8}));
  EXPECT_EQ(c.head_dim, 4);
  EXPECT_EQ(c.max_positions, 131072);
  EXPECT_EQ(c.window, 4096);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_FALSE(c.tied_head);
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{2}));
  const Json no_kv_heads = {
      {"model_type", "mistral"}, {"num_attention_heads", 16}, {"num_key_value_heads", nullptr}};
  EXPECT_EQ(load(no_kv_heads).kv_heads, (std::vector<int64_t>{16, 16, 16}));
}

TEST_F(Mistral, ReadsTheWindow) {
  const auto mistral = [](const char* key, const Json& value) {
    return Json{{"model_type", "mistral"}, {key, value}};
  };
  EXPECT_EQ(load(mistral("sliding_window", 5)).window, 5);
  EXPECT_EQ(load(mistral("sliding_window", nullptr)).window, 0);
  for (const Json& value : {Json(0), Json(-5), Json("5"), Json(5.0), Json(true)}) {
    expect_bad(mistral("sliding_window", value), {"`sliding_window`", "from 1", value.dump()});
  }
  expect_bad(mistral("layer_types", {"full_attention"}), {"`layer_types`", "not supported"});
  EXPECT_EQ(load(mistral("layer_types", nullptr)).window, 4096);
}

TEST_F(Mistral, SharesNoFieldsOfItsOwnWithLlama) {
  const Json mistral = {{"model_type", "mistral"}, {"attention_bias", true}, {"mlp_bias", "x"}};
  EXPECT_FALSE(load(mistral).attention_bias);
  EXPECT_FALSE(load(mistral).mlp_bias);
  EXPECT_EQ(load({{"sliding_window", 5}}).window, 0);
  EXPECT_EQ(load({{"sliding_window", "x"}, {"layer_types", "x"}}).window, 0);
}

}  // namespace
}  // namespace gqa
