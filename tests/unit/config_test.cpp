#include "gqa/config.h"

#include <cmath>

#include "io/json_value.h"
#include "support/config_case.h"

namespace gqa {
namespace {

using test::expect_error;
using test::put_file;

constexpr auto bad = ErrorKind::bad_data;

TEST_F(Config, TakesTransformersDefaults) {
  const ModelConfig c = load(Json::object());
  EXPECT_EQ(c.model_type, "llama");
  EXPECT_EQ(c.n_layers, 3);
  EXPECT_EQ(c.width, 64);
  EXPECT_EQ(c.mlp_width, 100);
  EXPECT_EQ(c.q_heads, 8);
  EXPECT_EQ(c.kv_heads, (std::vector<int64_t>{8, 8, 8}));
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.vocab_size, 300);
  EXPECT_EQ(c.max_positions, 2048);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.initializer_range, 0.02);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_EQ(c.rope.scaling, RopeConfig::Scaling::none);
  EXPECT_FALSE(c.tied_head);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_FALSE(c.mlp_bias);
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{2}));
}

TEST_F(Config, ReadsEveryField) {
  const ModelConfig c = load({{"head_dim", 16},
                              {"num_key_value_heads", 2},
                              {"max_position_embeddings", 77},
                              {"rms_norm_eps", 1e-5},
                              {"initializer_range", 0.5},
                              {"hidden_act", "silu"},
                              {"tie_word_embeddings", true},
                              {"attention_bias", true},
                              {"mlp_bias", true},
                              {"bos_token_id", 7},
                              {"eos_token_id", {8, 299}}});
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.kv_heads, (std::vector<int64_t>{2, 2, 2}));
  EXPECT_EQ(c.max_positions, 77);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_EQ(c.initializer_range, 0.5);
  EXPECT_TRUE(c.tied_head);
  EXPECT_TRUE(c.attention_bias);
  EXPECT_TRUE(c.mlp_bias);
  EXPECT_EQ(c.bos_token_id, 7);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{8, 299}));
}

TEST_F(Config, RefusesMissingFiles) {
  expect_error(ErrorKind::no_input, {"config.json"}, [&] { load_config(dir_.path()); });
  expect_error(ErrorKind::no_input, {"nowhere", "no such folder"},
               [&] { load_config(dir_ / "nowhere"); });
  put_file(dir_ / "file", "{}");
  expect_error(ErrorKind::no_input, {"file", "expected a model folder"},
               [&] { load_config(dir_ / "file"); });
  put_file(dir_ / "config.json", "[]");
  expect_error(bad, {"config.json", "object"}, [&] { load_config(dir_.path()); });
  put_file(dir_ / "config.json", R"({"vocab_size":1,"vocab_size":2})");
  expect_error(bad, {"config.json", "`vocab_size`"}, [&] { load_config(dir_.path()); });
}

TEST_F(Config, RefusesOtherFamilies) {
  expect_bad({{"model_type", "qwen2"}}, {"`model_type`", "`qwen2`", "`llama` or `mistral`"});
  expect_bad({{"model_type", "ABSENT"}}, {"`model_type`", "missing"});
  expect_bad({{"hidden_act", "gelu"}}, {"`hidden_act`", "`gelu`", "`silu`"});
  expect_bad({{"quantization_config", {{"quant_method", "awq"}}}},
             {"`quantization_config`", "awq", "quantised"});
  expect_bad({{"quantization_config", Json::object()}}, {"`quantization_config`", "quantised"});
  EXPECT_NO_THROW(load({{"quantization_config", nullptr}}));
}

TEST_F(Config, RefusesSizesThatAreMissingOrOutOfRange) {
  for (const char* key : {"num_hidden_layers", "hidden_size", "intermediate_size",
                          "num_attention_heads", "vocab_size"}) {
    expect_bad({{key, "ABSENT"}}, {key, "missing"});
    expect_bad({{key, 0}}, {key, "from 1", "got 0"});
    expect_bad({{key, -8}}, {key, "got -8"});
    expect_bad({{key, 8.0}}, {key, "integer", "8.0"});
    expect_bad({{key, "8"}}, {key, "integer", "\"8\""});
    expect_bad({{key, 2147483649}}, {key, "got 2147483649"});
  }
  expect_bad({{"num_hidden_layers", 65537}}, {"num_hidden_layers", "65536"});
  for (const char* key : {"head_dim", "num_key_value_heads", "max_position_embeddings"}) {
    expect_bad({{key, 0}}, {key, "got 0"});
    expect_bad({{key, "x"}}, {key, "\"x\""});
  }
  expect_bad({{"rms_norm_eps", -1}}, {"rms_norm_eps", "-1"});
  expect_bad({{"initializer_range", "x"}}, {"initializer_range", "\"x\""});
  for (const char* key : {"tie_word_embeddings", "attention_bias", "mlp_bias"}) {
    expect_bad({{key, 1}}, {key, "true or false", "got 1"});
  }
}

TEST_F(Config, RefusesSizesWhoseProductsOverflow) {
  expect_bad({{"num_attention_heads", 65536}, {"head_dim", 65536}}, {"overflows", "65536"});
  expect_bad({{"vocab_size", 2147483648}, {"hidden_size", 2147483648}}, {"overflows"});
  expect_bad(
      {{"intermediate_size", 2147483648}, {"hidden_size", 67108864}, {"num_hidden_layers", 64}},
      {"overflows"});
}

TEST_F(Config, RefusesHeadsThatDoNotFit) {
  expect_bad({{"hidden_size", 60}}, {"`hidden_size`", "num_attention_heads (8)", "got 60"});
  expect_bad({{"hidden_size", 72}}, {"even", "got 9"});
  expect_bad({{"head_dim", 7}}, {"`head_dim`", "even", "got 7"});
  expect_bad({{"num_key_value_heads", 3}},
             {"`num_key_value_heads`", "num_attention_heads (8)", "got 3"});
  expect_bad({{"num_key_value_heads", 16}}, {"`num_key_value_heads`", "got 16"});
}

TEST_F(Config, ReadsKvHeadsOfEachLayer) {
  EXPECT_EQ(load({{"num_key_value_heads", {8, 1, 4}}}).kv_heads, (std::vector<int64_t>{8, 1, 4}));
  expect_bad({{"num_key_value_heads", {8, 3, 4}}}, {"num_key_value_heads", "(8)", "got 3"});
  expect_bad({{"num_key_value_heads", {8, 4}}}, {"num_key_value_heads", "3 layers", "got 2"});
  expect_bad({{"num_key_value_heads", Json::array()}}, {"num_key_value_heads", "got 0"});
  expect_bad({{"num_key_value_heads", {8, 0, 4}}}, {"num_key_value_heads[1]", "got 0"});
}

TEST_F(Config, TakesEndTokensFromTheGenerationConfig) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(load({{"eos_token_id", 5}}, R"({"eos_token_id":[6,7]})").eos_token_ids, (Ids{6, 7}));
  EXPECT_EQ(load({{"eos_token_id", 5}}, R"({"eos_token_id":6})").eos_token_ids, (Ids{6}));
  EXPECT_EQ(load({{"eos_token_id", 5}}, R"({"eos_token_id":null})").eos_token_ids, (Ids{5}));
  EXPECT_EQ(load({{"eos_token_id", 5}}, "{}").eos_token_ids, (Ids{5}));
  EXPECT_EQ(load({{"eos_token_id", nullptr}}).eos_token_ids, (Ids{}));
  EXPECT_EQ(load({{"bos_token_id", nullptr}}).bos_token_id, std::nullopt);
  const ModelConfig tiny = load({{"vocab_size", 1}});
  EXPECT_EQ(tiny.bos_token_id, std::nullopt);
  EXPECT_EQ(tiny.eos_token_ids, (Ids{}));
}

TEST_F(Config, RefusesTokensOutsideTheVocabulary) {
  expect_bad({{"bos_token_id", 300}}, {"`bos_token_id`", "0 to 299", "300"});
  expect_bad({{"bos_token_id", -1}}, {"`bos_token_id`", "-1"});
  expect_bad({{"bos_token_id", {1, 2}}}, {"`bos_token_id`", "one id", "2"});
  expect_bad({{"eos_token_id", {2, 300}}}, {"`eos_token_id[1]`", "300"});
  expect_error(bad, {"generation_config.json", "`eos_token_id`", "300"},
               [&] { load(Json::object(), R"({"eos_token_id":300})"); });
  expect_error(bad, {"generation_config.json", "JSON"}, [&] { load(Json::object(), "{"); });
}

TEST_F(Config, ReadsRopeInOldAndNewForm) {
  using Scaling = RopeConfig::Scaling;
  EXPECT_EQ(load({{"rope_theta", 5e5}}).rope.theta, 5e5);
  EXPECT_EQ(load({{"rope_theta", 5e5}, {"rope_scaling", nullptr}}).rope.theta, 5e5);
  EXPECT_EQ(load({{"rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "default"}}}}).rope.theta,
            5e5);
  EXPECT_EQ(load({{"rope_theta", 7e5}, {"rope_parameters", {{"rope_type", "default"}}}}).rope.theta,
            7e5);
  for (const char* type : {"type", "rope_type"}) {
    for (const char* form : {"rope_scaling", "rope_parameters"}) {
      const auto rope = load({{form, {{type, "linear"}, {"factor", 4}}}}).rope;
      EXPECT_EQ(rope.scaling, Scaling::linear);
      EXPECT_EQ(rope.factor, 4.0);
      EXPECT_EQ(rope.theta, 10000.0);
    }
  }
  const auto rope = load({{"rope_theta", 5e5},
                          {"rope_scaling",
                           {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.5},
                            {"high_freq_factor", 4.5},
                            {"original_max_position_embeddings", 512}}}})
                        .rope;
  EXPECT_EQ(rope.scaling, Scaling::llama3);
  EXPECT_EQ(rope.theta, 5e5);
  EXPECT_EQ(rope.factor, 8.0);
  EXPECT_EQ(rope.low_freq_factor, 1.5);
  EXPECT_EQ(rope.high_freq_factor, 4.5);
  EXPECT_EQ(rope.original_positions, 512);
}

TEST_F(Config, ReadsYarn) {
  const auto yarn = [&](Json more) {
    more["rope_type"] = "yarn";
    return load({{"rope_parameters", more}}).rope;
  };
  const auto plain = yarn({{"factor", 4.0}});
  EXPECT_EQ(plain.scaling, RopeConfig::Scaling::yarn);
  EXPECT_EQ(plain.original_positions, 2048);
  EXPECT_EQ(plain.beta_fast, 32.0);
  EXPECT_EQ(plain.beta_slow, 1.0);
  EXPECT_TRUE(plain.truncate);
  EXPECT_DOUBLE_EQ(plain.attention_factor.value(), 0.1 * std::log(4.0) + 1.0);
  const auto full = yarn({{"factor", 4.0},
                          {"original_max_position_embeddings", 1024},
                          {"beta_fast", 16},
                          {"beta_slow", 2},
                          {"truncate", false},
                          {"attention_factor", 0.5}});
  EXPECT_EQ(full.original_positions, 1024);
  EXPECT_EQ(full.beta_fast, 16.0);
  EXPECT_EQ(full.beta_slow, 2.0);
  EXPECT_FALSE(full.truncate);
  EXPECT_EQ(full.attention_factor, 0.5);
  // No factor: how far the positions were extended.
  EXPECT_EQ(yarn({{"factor", nullptr}, {"original_max_position_embeddings", 512}}).factor, 4.0);
  const auto mscale = yarn({{"factor", 40}, {"mscale", 0.5}, {"mscale_all_dim", 1.0}});
  EXPECT_DOUBLE_EQ(mscale.attention_factor.value(),
                   (0.05 * std::log(40.0) + 1.0) / (0.1 * std::log(40.0) + 1.0));
  EXPECT_EQ(yarn({{"factor", 1}}).attention_factor, 1.0);
}

TEST_F(Config, ReadsLongrope) {
  const auto longrope = [&](Json more) {
    more["rope_type"] = "longrope";
    if (!more.contains("short_factor")) more["short_factor"] = {1.0, 1.5, 2};
    if (!more.contains("long_factor")) more["long_factor"] = {1.0, 3.0, 9.5};
    return load({{"head_dim", 6}, {"rope_scaling", more}});
  };
  const ModelConfig plain = longrope(Json::object());
  EXPECT_EQ(plain.rope.scaling, RopeConfig::Scaling::longrope);
  EXPECT_EQ(plain.rope.short_factors, (std::vector<double>{1.0, 1.5, 2.0}));
  EXPECT_EQ(plain.rope.long_factors, (std::vector<double>{1.0, 3.0, 9.5}));
  EXPECT_EQ(plain.rope.original_positions, 2048);
  EXPECT_EQ(plain.rope.attention_factor, 1.0);
  EXPECT_EQ(plain.max_positions, 2048);
  // Ding et al. (2024), from how far positions were extended, or as `factor` says.
  const ModelConfig extended = longrope({{"original_max_position_embeddings", 512}});
  const double scale = std::sqrt(1 + std::log(4.0) / std::log(512.0));
  EXPECT_DOUBLE_EQ(extended.rope.attention_factor.value(), scale);
  EXPECT_EQ(extended.max_positions, 512) << "longer sequences need the long factors";
  const Json same = {{"original_max_position_embeddings", 512},
                     {"long_factor", {1.0, 1.5, 2}},
                     {"attention_factor", 0.75}};
  EXPECT_EQ(longrope(same).max_positions, 2048);
  EXPECT_EQ(longrope(same).rope.attention_factor, 0.75);
  EXPECT_EQ(
      longrope({{"factor", 1.0}, {"original_max_position_embeddings", 512}}).rope.attention_factor,
      1.0);
}

TEST_F(Config, RefusesUnsoundLongrope) {
  const auto expect_longrope = [&](const char* key, const Json& value,
                                   std::initializer_list<std::string_view> words) {
    Json rope = {
        {"rope_type", "longrope"}, {"short_factor", {1, 1, 1}}, {"long_factor", {1, 1, 1}}};
    rope[key] = value;
    expect_bad({{"head_dim", 6}, {"rope_scaling", rope}}, words);
  };
  for (const char* key : {"short_factor", "long_factor"}) {
    expect_longrope(key, nullptr, {"`rope_scaling.", key, "null"});
    expect_longrope(key, 1.5, {"`rope_scaling.", key, "3 numbers", "1.5"});
    expect_longrope(key, {1, 2}, {"`rope_scaling.", key, "3 numbers", "[1,2]"});
    expect_longrope(key, {1, 2, 0}, {"`rope_scaling.", key, "above 0"});
    expect_longrope(key, {1, 2, "3"}, {"`rope_scaling.", key});
    expect_longrope(key, {1, 2, 1e300}, {"`rope_scaling.", key});
  }
  expect_longrope("original_max_position_embeddings", 1,
                  {"`rope_scaling.original_max_position_embeddings`", "at least 2", "got 1"});
}

TEST_F(Config, RefusesOtherRope) {
  const auto expect_rope = [&](const Json& rope, std::initializer_list<std::string_view> words) {
    expect_bad({{"rope_scaling", rope}}, words);
  };
  for (const char* type : {"dynamic", "su", "mrope"}) {
    expect_rope({{"rope_type", type}, {"factor", 2.0}},
                {"`rope_scaling.rope_type`", type, "llama3"});
    expect_rope({{"type", type}, {"factor", 2.0}}, {"`rope_scaling.type`", type, "llama3"});
  }
  expect_rope(3, {"`rope_scaling`", "object"});
  expect_rope({{"type", "linear"}}, {"`rope_scaling.factor`", "missing"});
  expect_rope({{"type", "linear"}, {"factor", 0.5}}, {"`rope_scaling.factor`", "0.5"});
  expect_rope({{"type", "llama3"}, {"factor", 8}, {"high_freq_factor", 4}},
              {"`rope_scaling.low_freq_factor`", "missing"});
  expect_rope({{"type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}},
              {"`rope_scaling.high_freq_factor`", "low_freq_factor (4)", "got 4"});
  expect_rope({{"type", "yarn"}, {"original_max_position_embeddings", 4096}},
              {"`rope_scaling.original_max_position_embeddings`", "2048", "4096"});
  expect_rope({{"type", "yarn"}, {"factor", 2}, {"beta_fast", 1}, {"beta_slow", 2}},
              {"`rope_scaling.beta_fast`", "beta_slow (2)", "got 1"});
  expect_rope({{"type", "yarn"}, {"factor", 2}, {"rope_theta", 1}},
              {"`rope_scaling.rope_theta`", "more than 1"});
  expect_rope({{"rope_type", "default"}, {"partial_rotary_factor", 0.5}},
              {"`rope_scaling.partial_rotary_factor`", "0.5"});
  expect_bad({{"partial_rotary_factor", 0.5}}, {"`partial_rotary_factor`", "0.5"});
  expect_bad({{"rope_theta", -1}}, {"`rope_theta`", "-1"});
  expect_bad({{"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}}},
             {"`rope_parameters.full_attention`", "one set"});
}

}  // namespace
}  // namespace gqa
