// What a GGUF file says of positions and of tokens.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "gqa/gguf.h"
#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/read_gguf.h"
#include "support/small_tokenizers.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::GgufReader;
using test::TempDir;
using test::TinyLlama;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr auto bad_data = ErrorKind::bad_data;
const TinyLlama with_pieces = {.vocab_size = 270};
const TinyLlama with_words = {.vocab_size = 259};

class GgufMetadataTest : public testing::Test {
 protected:
  GgufReader exported(const TinyLlama& model) {
    test::write_tiny(dir_ / "in", model);
    return written();
  }
  GgufReader exported(const TinyLlama& model, const Json& tokenizer) {
    test::write_tiny(dir_ / "in", model);
    test::put_file(dir_ / "in" / "tokenizer.json", tokenizer.dump());
    return written();
  }
  GgufReader written() {
    plan_ = plan_gguf(dir_ / "in", {});
    export_gguf(dir_ / "in", dir_ / "out", {.dtype = {}, .force = true});
    return GgufReader(test::get_file(dir_ / "out"));
  }
  void refused(const TinyLlama& model, const Json& tokenizer,
               std::initializer_list<std::string_view> words) {
    test::write_tiny(dir_ / "in", model);
    test::put_file(dir_ / "in" / "tokenizer.json", tokenizer.dump());
    test::expect_error(bad_data, words, [&] { plan_gguf(dir_ / "in", {}); });
  }
  static TinyLlama with_rope(const Json& scaling) {
    return {.extra = Json{{"rope_theta", 500.0}, {"rope_scaling", scaling}}};
  }

  const TempDir dir_;
  GgufPlan plan_;
};

TEST_F(GgufMetadataTest, LinearScaling) {
  const GgufReader file = exported(with_rope({{"rope_type", "linear"}, {"factor", 4.0}}));
  EXPECT_EQ(file.get<std::string>("llama.rope.scaling.type"), "linear");
  EXPECT_EQ(file.get<float>("llama.rope.scaling.factor"), 4.0f);
  EXPECT_EQ(file.get<float>("llama.rope.freq_base"), 500.0f);
}

TEST_F(GgufMetadataTest, YarnScaling) {
  Json yarn = {{"rope_type", "yarn"},     {"factor", 4.0},
               {"beta_fast", 16.0},       {"beta_slow", 2.0},
               {"attention_factor", 1.5}, {"original_max_position_embeddings", 8}};
  const GgufReader file = exported(with_rope(yarn));
  EXPECT_EQ(file.get<std::string>("llama.rope.scaling.type"), "yarn");
  EXPECT_EQ(file.get<float>("llama.rope.scaling.factor"), 4.0f);
  EXPECT_EQ(file.number("llama.rope.scaling.original_context_length"), 8);
  EXPECT_EQ(file.get<float>("llama.rope.scaling.yarn_beta_fast"), 16.0f);
  EXPECT_EQ(file.get<float>("llama.rope.scaling.yarn_beta_slow"), 2.0f);
  EXPECT_FLOAT_EQ(file.get<float>("llama.rope.scaling.attn_factor"),
                  static_cast<float>(1.5 / (1 + 0.1 * std::log(4.0))));
  EXPECT_FALSE(file.tensors.contains("rope_freqs.weight"));
}

TEST_F(GgufMetadataTest, YarnThatLlamaCppRoundsGoesByFactors) {
  const GgufReader file = exported(with_rope({{"rope_type", "yarn"},
                                              {"factor", 4.0},
                                              {"truncate", false},
                                              {"attention_factor", 1.5},
                                              {"original_max_position_embeddings", 8}}));
  EXPECT_FALSE(file.metadata.contains("llama.rope.scaling.type"));
  EXPECT_EQ(file.get<float>("llama.rope.scaling.attn_factor"), 1.5f);
  EXPECT_EQ(file.tensors.at("rope_freqs.weight").values.size(), 3u);
}

TEST_F(GgufMetadataTest, LongropeGoesByFactors) {
  const GgufReader file = exported(with_rope({{"rope_type", "longrope"},
                                              {"short_factor", {1.0, 2.5, 0.5}},
                                              {"long_factor", {1.0, 2.5, 0.5}},
                                              {"attention_factor", 1.25},
                                              {"original_max_position_embeddings", 8}}));
  EXPECT_FALSE(file.metadata.contains("llama.rope.scaling.type"));
  EXPECT_EQ(file.get<float>("llama.rope.scaling.attn_factor"), 1.25f);
  const auto& factors = file.tensors.at("rope_freqs.weight").values;
  ASSERT_EQ(factors.size(), 3u);
  EXPECT_FLOAT_EQ(factors[0], 1.0f);
  EXPECT_FLOAT_EQ(factors[1], 2.5f);
  EXPECT_FLOAT_EQ(factors[2], 0.5f);
}

TEST_F(GgufMetadataTest, Llama3Scaling) {
  const GgufReader file = exported(with_rope({{"rope_type", "llama3"},
                                              {"factor", 8.0},
                                              {"low_freq_factor", 1.0},
                                              {"high_freq_factor", 4.0},
                                              {"original_max_position_embeddings", 40}}));
  EXPECT_FALSE(file.metadata.contains("llama.rope.scaling.type"));
  // Planes turn 40 * 500^(-i/3) / 2 pi times over the 40 positions: 6.4, 0.80 and 0.10.
  EXPECT_THAT(file.tensors.at("rope_freqs.weight").values,
              ElementsAre(1.0f, testing::FloatEq(8.0f), testing::FloatEq(8.0f)));
}

TEST_F(GgufMetadataTest, WindowBoundsTheContext) {
  EXPECT_EQ(exported({.window = 9}).number("llama.context_length"), 9);
  EXPECT_THAT(plan_.notes, Contains(HasSubstr("sliding window")));
  EXPECT_EQ(exported({.window = 32}).number("llama.context_length"), 32);
  EXPECT_THAT(plan_.notes, testing::Not(Contains(HasSubstr("sliding window"))));
}

// ---- tokenizers ----

TEST_F(GgufMetadataTest, Pieces) {
  const GgufReader file = exported(with_pieces, test::pieces_tokenizer());
  EXPECT_EQ(file.get<std::string>("tokenizer.ggml.model"), "llama");
  EXPECT_FALSE(file.metadata.contains("tokenizer.ggml.pre"));
  EXPECT_TRUE(file.get<bool>("tokenizer.ggml.add_space_prefix"));
  const auto tokens = file.get<std::vector<std::string>>("tokenizer.ggml.tokens");
  const auto types = file.get<std::vector<int64_t>>("tokenizer.ggml.token_type");
  const auto scores = file.get<std::vector<float>>("tokenizer.ggml.scores");
  ASSERT_EQ(tokens.size(), 270u);
  EXPECT_EQ(types.size(), 270u);
  EXPECT_EQ(scores.size(), 270u);
  EXPECT_EQ(tokens[3], "<0x00>");
  EXPECT_EQ(tokens[266], "abc");
  EXPECT_EQ(tokens[268], "[PAD268]");
  const auto type_of = [&](size_t id) { return types[id]; };
  EXPECT_EQ(type_of(0), 2);    // unknown
  EXPECT_EQ(type_of(1), 3);    // control
  EXPECT_EQ(type_of(100), 6);  // byte
  EXPECT_EQ(type_of(266), 1);  // normal
  EXPECT_EQ(type_of(267), 4);  // user defined
  EXPECT_EQ(type_of(268), 5);  // unused
  // "bc", then the mark with "a", then "ab", then both ways to "abc".
  EXPECT_GT(scores[264], scores[265]);
  EXPECT_GT(scores[265], scores[263]);
  EXPECT_GT(scores[263], scores[266]);
  EXPECT_EQ(file.number("tokenizer.ggml.unknown_token_id"), 0);
  EXPECT_EQ(file.number("tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(file.number("tokenizer.ggml.eos_token_id"), 2);
  EXPECT_TRUE(file.get<bool>("tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(file.get<bool>("tokenizer.ggml.add_eos_token"));
  EXPECT_FALSE(file.metadata.contains("tokenizer.chat_template"));
  EXPECT_THAT(plan_.notes, IsEmpty());
}

TEST_F(GgufMetadataTest, MergesThatScoresCannotFollowAreRefused) {
  Json tokenizer = test::pieces_tokenizer();
  tokenizer["model"]["merges"] = Json::array({"b c", "\u2581 a", "a b", "ab c"});
  refused(with_pieces, tokenizer, {"model.merges", "\"a\" and \"bc\"", "\"abc\""});
  tokenizer["model"]["merges"] = Json::array({"b c", "a b", "a bc", "\u2581 a", "ab c"});
  refused(with_pieces, tokenizer, {"model.merges", "make \"abc\"", "got \"\u2581a\""});
  tokenizer["model"]["vocab"]["<0x41>a"] = 268;
  tokenizer["model"]["merges"] =
      Json::array({"b c", "\u2581 a", "a b", "a bc", "ab c", "<0x41> a"});
  tokenizer["added_tokens"].erase(3);
  refused(with_pieces, tokenizer, {"model.merges", "byte", "<0x41>"});
}

TEST_F(GgufMetadataTest, OfAMergeGivenTwiceTheLastCounts) {
  Json tokenizer = test::pieces_tokenizer();
  tokenizer["model"]["merges"] = Json::array({"a b", "b c", "\u2581 a", "a b", "a bc", "ab c"});
  const auto scores =
      exported(with_pieces, tokenizer).get<std::vector<float>>("tokenizer.ggml.scores");
  EXPECT_GT(scores[265], scores[263]);
}

TEST_F(GgufMetadataTest, Metaspace) {
  Json tokenizer = test::pieces_tokenizer();
  tokenizer["normalizer"] = nullptr;
  tokenizer["pre_tokenizer"] = {{"type", "Metaspace"},
                                {"replacement", "\u2581"},
                                {"prepend_scheme", "never"},
                                {"split", false}};
  EXPECT_FALSE(exported(with_pieces, tokenizer).get<bool>("tokenizer.ggml.add_space_prefix"));
  EXPECT_THAT(plan_.notes, IsEmpty());
  tokenizer["pre_tokenizer"]["prepend_scheme"] = "first";
  tokenizer["pre_tokenizer"]["split"] = true;
  EXPECT_TRUE(exported(with_pieces, tokenizer).get<bool>("tokenizer.ggml.add_space_prefix"));
  EXPECT_THAT(plan_.notes, ElementsAre(HasSubstr("puts a space before")));
  tokenizer["model"]["vocab"]["a\u2581"] = 268;
  tokenizer["model"]["merges"].push_back("a \u2581");
  tokenizer["added_tokens"].erase(3);
  refused(with_pieces, tokenizer, {"pre_tokenizer.split", "\"a\" and \"\u2581\""});
}

TEST_F(GgufMetadataTest, NoMarkForSpacesIsRefused) {
  Json tokenizer = test::pieces_tokenizer();
  tokenizer["normalizer"] = nullptr;
  refused(with_pieces, tokenizer, {"no name", "normalizer none"});
}

TEST_F(GgufMetadataTest, Words) {
  const GgufReader file = exported(with_words, test::words_tokenizer());
  EXPECT_EQ(file.get<std::string>("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(file.get<std::string>("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_THAT(file.get<std::vector<std::string>>("tokenizer.ggml.merges"),
              ElementsAre("a b", "ab c"));
  EXPECT_EQ(file.get<std::vector<std::string>>("tokenizer.ggml.tokens")[258], "<|end|>");
  EXPECT_EQ(file.get<std::vector<int64_t>>("tokenizer.ggml.token_type")[258], 3);
  EXPECT_FALSE(file.metadata.contains("tokenizer.ggml.scores"));
  EXPECT_FALSE(file.metadata.contains("tokenizer.ggml.unknown_token_id"));
}

TEST_F(GgufMetadataTest, UnknownPatternsAreRefused) {
  Json tokenizer = test::words_tokenizer();
  tokenizer["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       Json::array(
           {Json{{"type", "Split"},
                 {"pattern", {{"Regex", "\\p{L}{1,7}"}}},
                 {"behavior", "Isolated"},
                 {"invert", false}},
            Json{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}})}};
  refused(with_words, tokenizer, {"\\p{L}{1,7}", "tokenizer.json"});
  tokenizer = test::words_tokenizer();
  tokenizer["model"]["ignore_merges"] = true;
  refused(with_words, tokenizer, {"ignore_merges true"});
}

TEST_F(GgufMetadataTest, PostProcessorSaysWhatIsAdded) {
  Json tokenizer = test::pieces_tokenizer();
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json end = {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}};
  tokenizer["post_processor"] = {{"type", "TemplateProcessing"},
                                 {"single", Json::array({text, end})}};
  const GgufReader file = exported(with_pieces, tokenizer);
  EXPECT_FALSE(file.get<bool>("tokenizer.ggml.add_bos_token"));
  EXPECT_TRUE(file.get<bool>("tokenizer.ggml.add_eos_token"));
}

TEST_F(GgufMetadataTest, ConfigAndTemplates) {
  test::write_tiny(dir_ / "in", with_pieces);
  test::put_file(dir_ / "in" / "tokenizer.json", test::pieces_tokenizer().dump());
  test::put_file(dir_ / "in" / "generation_config.json", R"({"eos_token_id": [2, 5, 7, 9]})");
  test::put_file(dir_ / "in" / "tokenizer_config.json",
                 R"({"add_bos_token": false, "chat_template": [{"name": "x", "template": "X"},
                    {"name": "default", "template": "D"}]})");
  const GgufReader file = written();
  EXPECT_FALSE(file.get<bool>("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(file.get<std::string>("tokenizer.chat_template"), "D");
  EXPECT_EQ(file.number("tokenizer.ggml.eos_token_id"), 2);
  EXPECT_EQ(file.number("tokenizer.ggml.eot_token_id"), 5);
  EXPECT_EQ(file.number("tokenizer.ggml.eom_token_id"), 7);
  EXPECT_THAT(plan_.notes, ElementsAre(HasSubstr("1 more")));
  test::put_file(dir_ / "in" / "chat_template.jinja", "J");
  EXPECT_EQ(written().get<std::string>("tokenizer.chat_template"), "J");
}

}  // namespace
}  // namespace gqa
