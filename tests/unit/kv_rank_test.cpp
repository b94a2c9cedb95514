// Fewer numbers per key and value: models that need no more are converted exactly.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "convert/kv_rank.h"
#include "gqa/convert.h"
#include "gqa/inspect.h"
#include "io/json_value.h"
#include "io/key_directions.h"
#include "support/change_heads.h"
#include "support/expect_error.h"
#include "support/hidden_groups.h"
#include "support/model_logits.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::difference;
using test::expect_error;
using test::folder_content;
using test::get_file;
using test::logits;
using test::TempDir;
using test::TinyLlama;
using testing::HasSubstr;

constexpr int64_t rank = 4;
constexpr double exact = 1e-4;
constexpr const char* recipe_file = "gqa_recipe.json";

/// The model with queries that do not use plane `unused`, and with values in `rank` dimensions, in
/// another basis for each head.
void hide(const fs::path& from, const fs::path& to, int64_t unused, uint64_t seed) {
  std::mt19937_64 random(seed);
  test::change_heads(from, to, [&](Heads heads) {
    for (int64_t h = 0; h < heads.q_heads(); ++h) {
      heads.q_of(h).row(unused).setZero();
      heads.q_of(h).row(unused + heads.head_dim / 2).setZero();
    }
    for (int64_t g = 0; g < heads.kv_heads(); ++g) {
      heads.v_of(g) = Matrix(test::random_matrix(random, heads.head_dim, rank) *
                             test::random_matrix(random, rank, heads.inputs()));
    }
    return heads;
  });
}

/// By weights and by text, with and without refinement.
std::vector<ConvertOptions> methods() {
  std::vector<ConvertOptions> all(3);
  for (ConvertOptions& options : all) options.kv_rank = rank;
  all[1].calibration = Calibration{.text = {}, .sampled_tokens = 300, .steps = 0};
  all[2].calibration = Calibration{.text = {}, .sampled_tokens = 300, .steps = 2};
  return all;
}

TEST(KvRank, WhatNeedsNoMoreIsExact) {
  const Json llama3 = {{"rope_type", "llama3"},  {"factor", 8.0},
                       {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
                       {"rope_theta", 700.0},    {"original_max_position_embeddings", 16}};
  const Json yarn = {{"rope_type", "yarn"},
                     {"factor", 4.0},
                     {"original_max_position_embeddings", 8},
                     {"attention_factor", 1.3}};
  const Json longrope = {{"rope_type", "longrope"},
                         {"short_factor", {1.0, 0.25, 3.0}},
                         {"long_factor", {2.0, 4.0, 8.0}},
                         {"original_max_position_embeddings", 32}};
  for (const TinyLlama& tiny :
       {TinyLlama{.n_layers = 3}, TinyLlama{.attention_bias = true, .seed = 2},
        TinyLlama{.q_heads = 6, .kv_heads = 2, .window = 9, .extra = {{"rope_theta", 50.0}}},
        TinyLlama{.layer_kv_heads = {3, 4}, .group_sizes = {{3, 1, 4}, {}}},
        TinyLlama{.kv_heads = 4, .extra = {{"rope_parameters", llama3}}},
        TinyLlama{.kv_heads = 4, .extra = {{"rope_scaling", yarn}, {"rope_theta", 300.0}}},
        TinyLlama{.kv_heads = 1, .extra = {{"rope_scaling", longrope}}}}) {
    const TempDir dir;
    test::write_tiny(dir / "any", tiny);
    for (const int64_t unused : {0, 2}) {
      const fs::path model = dir / fmt::format("model{}", unused);
      hide(dir / "any", model, unused, tiny.seed);
      const auto want = logits(model);
      for (ConvertOptions options : methods()) {
        SCOPED_TRACE(bool(options.calibration));
        options.output.force = true;
        convert(model, dir / "out", options);
        const ModelConfig config = load_config(dir / "out");
        EXPECT_EQ(config.head_dim, rank);
        EXPECT_EQ(config.kv_heads, load_config(model).kv_heads);
        EXPECT_LT(difference(want, logits(dir / "out")), exact);
        EXPECT_EQ(verify(dir / "out").problems, std::vector<std::string>());
        if (options.calibration) {
          EXPECT_EQ(std::ssize(read_key_directions(dir / "out", config)[0]),
                    config.kv_heads[0] * rank * rank);
        }
        // One dimension less is missed.
        options.kv_rank = rank - 2;
        convert(model, dir / "less", options);
        EXPECT_GT(difference(want, logits(dir / "less")), 1e-2);
      }
    }
  }
}

/// Heads that are one head in many bases, and that need few dimensions.
TEST(KvRank, GoesWithFewerHeads) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    const TinyLlama tiny{.width = 14,
                         .q_heads = 6,
                         .kv_heads = 2,
                         .tied_head = false,
                         .attention_bias = seed == 2,
                         .seed = seed};
    const TempDir dir;
    test::write_tiny(dir / "any", tiny);
    hide(dir / "any", dir / "small", 1, seed);
    expand(dir / "small", dir / "expanded", {});
    std::mt19937_64 random(seed);
    test::change_heads(dir / "expanded", dir / "model", [&](Heads heads) {
      for (int64_t g = 0; g < heads.kv_heads(); ++g) test::change_basis(heads, g, random);
      return heads;
    });
    const auto want = logits(dir / "small");
    ASSERT_LT(difference(want, logits(dir / "model")), exact);
    for (ConvertOptions options : methods()) {
      options.kv_heads = 2;
      options.output.force = true;
      convert(dir / "model", dir / "out", options);
      EXPECT_LT(difference(want, logits(dir / "out")), exact) << seed << bool(options.calibration);
    }
  }
}

TEST(KvRank, SaysWhatItDoes) {
  const TempDir dir;
  const TinyLlama tiny{.max_positions = 77, .extra = {{"rope_theta", 123.0}}};
  const fs::path in = test::write_tiny(dir / "in", tiny);
  hide(in, dir / "model", 1, 1);
  const ConvertOptions options{.kv_rank = rank};
  const ConvertPlan plan = plan_convert(dir / "model", options).plan();
  EXPECT_EQ(plan.planes, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(plan.result_kv_bytes_per_token * 6, plan.source_kv_bytes_per_token * rank);
  convert(dir / "model", dir / "out", options);
  EXPECT_EQ(inspect(dir / "out", {}).kv_bytes_per_token, plan.result_kv_bytes_per_token);
  const Json config = Json::parse(get_file(dir / "out" / "config.json"));
  EXPECT_EQ(config["rope_theta"], 123.0);
  const Json& rope = config["rope_scaling"];
  EXPECT_EQ(rope["rope_type"], "longrope");
  EXPECT_EQ(rope["original_max_position_embeddings"], 77);
  EXPECT_EQ(rope["attention_factor"], 1.0);
  EXPECT_EQ(rope["short_factor"], rope["long_factor"]);
  ASSERT_EQ(rope["short_factor"].size(), 2u);
  // Plane 2 of 3 turns by theta^(-2/3), plane 1 of 2 by theta^(-1/2).
  EXPECT_NEAR(rope["short_factor"][1].get<double>(), std::pow(123.0, 2.0 / 3 - 0.5), 1e-6);
  const Json recipe = Json::parse(get_file(dir / "out" / recipe_file));
  EXPECT_EQ(recipe["options"]["kv_rank"], rank);
  EXPECT_EQ(recipe["planes"], Json(plan.planes));
  const std::string card = get_file(dir / "out" / "README.md");
  EXPECT_THAT(card, HasSubstr("| head size | 6 | 4 |"));
  EXPECT_THAT(card, HasSubstr("2 rotary planes (0, 2) of 3"));
  EXPECT_THAT(card, HasSubstr("--kv-rank 4"));
  EXPECT_THAT(card, HasSubstr("changes what the model computes"));
}

TEST(KvRank, RecipesAndStopsGiveTheSameBytes) {
  const TempDir dir;
  const fs::path in = test::write_tiny(dir / "in", {.dtype = DType::bf16});
  for (ConvertOptions options : methods()) {
    options.output.force = true;
    convert(in, dir / "out", options);
    const auto want = folder_content(dir / "out");
    const ConvertOptions read = read_recipe(dir / "out" / recipe_file, in);
    EXPECT_EQ(read.kv_rank, rank);
    fs::remove_all(dir / "again");
    convert(in, dir / "again", read);
    EXPECT_EQ(folder_content(dir / "again"), want);
    options.kv_heads = 4;
    options.output.threads = 3;
    convert(in, dir / "out", options);
    const ConvertOptions fewer = read_recipe(dir / "out" / recipe_file, in);
    EXPECT_EQ(fewer.kv_heads, 4);
    EXPECT_EQ(fewer.kv_rank, rank);
  }
}

TEST(KvRank, RefusesWhatDoesNotGo) {
  const TempDir dir;
  const fs::path in = test::write_tiny(dir / "in", {});
  const auto refused = [&](const ConvertOptions& options,
                           std::initializer_list<std::string_view> words) {
    expect_error(ErrorKind::usage, words, [&] { convert(in, dir / "out", options); });
    EXPECT_FALSE(fs::exists(dir / "out"));
  };
  for (const int64_t odd : {-2, 0, 1, 3, 5, 6, 7, 8, 100}) {
    refused({.kv_rank = odd}, {"--kv-rank", "even number from 2 to 4", fmt::format("got {}", odd)});
  }
  refused({.kv_rank = 4, .merge = "mean"}, {"--kv-rank", "`pca`", "`mean`"});
  refused({.budget = 0.5, .kv_rank = 4}, {"--kv-rank", "budget"});
  refused({.kv_rank = 4, .unequal = true}, {"kv_heads"});
}

}  // namespace
}  // namespace gqa
