// What loading a tokenizer.json refuses, and that the message names the place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "io/json_value.h"
#include "tiny_tokenizers.h"

namespace gqa {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// Expects that a changed tokenizer is refused as bad data with a message that has all of `parts`.
void expect_refused(Json json, const std::function<void(Json&)>& change,
                    const std::vector<std::string>& parts) {
  ASSERT_EQ(load_error(json.dump()), "");
  change(json);
  ErrorKind kind{};
  const std::string message = load_error(json.dump(), &kind);
  EXPECT_EQ(kind, ErrorKind::bad_data);
  EXPECT_THAT(message, HasSubstr("tokenizer.json"));
  for (const std::string& part : parts) EXPECT_THAT(message, HasSubstr(part));
}

void expect_llama2_refused(const std::function<void(Json&)>& change,
                           const std::vector<std::string>& parts) {
  expect_refused(llama2_tokenizer(), change, parts);
}

void expect_gpt2_refused(const std::function<void(Json&)>& change,
                         const std::vector<std::string>& parts) {
  expect_refused(gpt2_tokenizer(), change, parts);
}

TEST(Load, MissingFileIsNoInput) {
  try {
    Tokenizer::load("/nonexistent/tokenizer.json");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::no_input);
  }
}

TEST(Load, EmptyObjectLacksTheModel) {
  ErrorKind kind{};
  EXPECT_THAT(load_error("{}", &kind), AllOf(HasSubstr("tokenizer.json"), HasSubstr("`model`")));
  EXPECT_EQ(kind, ErrorKind::bad_data);
}

TEST(Load, WhatIsNoJson) {
  for (const char* text :
       {"", "{", "[]", "3", "{\"model\": }", "\xff", "{\"model\": {\"vocab\": {\"a\": 1"}) {
    ErrorKind kind{};
    EXPECT_THAT(load_error(text, &kind), HasSubstr("tokenizer.json")) << text;
    EXPECT_EQ(kind, ErrorKind::bad_data) << text;
  }
}

TEST(Load, KeysGivenTwice) {
  EXPECT_THAT(load_error(R"({"version": "1.0", "version": "1.0"})"),
              HasSubstr("`version` is given twice"));
  EXPECT_THAT(load_error(R"({"model": {"vocab": {"a": 1}, "vocab": {}}})"),
              HasSubstr("`vocab` is given twice"));
  EXPECT_THAT(load_error(R"({"model": {"type": "BPE", "vocab": {"a": 1, "a": 2}, "merges": []}})"),
              HasSubstr("\"a\": given twice"));
}

TEST(Load, DeepNesting) { EXPECT_THAT(load_error(std::string(100000, '[')), HasSubstr("deep")); }

TEST(Load, OtherVersions) {
  expect_llama2_refused([](Json& j) { j["version"] = "2.0"; }, {"`version`", "2.0"});
}

TEST(Load, OtherModels) {
  for (const char* type : {"Unigram", "WordPiece", "WordLevel"}) {
    expect_llama2_refused([&](Json& j) { j["model"]["type"] = type; },
                          {"`model.type`", type, "BPE"});
  }
}

TEST(Load, AFileWithoutModelTypeIsBpe) {
  Json json = gpt2_tokenizer();
  json["model"].erase("type");
  EXPECT_EQ(load_error(json.dump()), "");
  json["model"].erase("merges");
  EXPECT_THAT(load_error(json.dump()), HasSubstr("`model.type`"));
}

TEST(Load, MissingVocabularyOrMerges) {
  expect_llama2_refused([](Json& j) { j["model"].erase("vocab"); }, {"`model.vocab`"});
  expect_llama2_refused([](Json& j) { j["model"]["vocab"] = Json::array(); }, {"`model.vocab`"});
  expect_llama2_refused([](Json& j) { j["model"].erase("merges"); }, {"`model.merges`"});
  expect_llama2_refused([](Json& j) { j["model"]["merges"] = 3; }, {"`model.merges`"});
}

TEST(Load, VocabularyIds) {
  const auto set = [](Json id) { return [id](Json& j) { j["model"]["vocab"]["ab"] = id; }; };
  expect_llama2_refused(set(261), {"`model.vocab`", "\"ab\"", "261"});
  expect_llama2_refused(set(-1), {"\"ab\"", "-1"});
  expect_llama2_refused(set(2147483647), {"\"ab\"", "2147483647"});
  expect_llama2_refused(set(18446744073709551615u), {"\"ab\""});
  expect_llama2_refused(set(1.5), {"\"ab\"", "integer"});
  expect_llama2_refused(set("262"), {"\"ab\"", "integer"});
  expect_llama2_refused(set(nullptr), {"\"ab\"", "integer"});
  expect_llama2_refused(set(Json::array()), {"\"ab\"", "integer"});
}

TEST(Load, TheHighestId) {
  Json json = llama2_tokenizer();
  json["model"]["vocab"]["abab"] = 2147483646;
  EXPECT_EQ(load_json(json).id_limit(), 2147483647);
}

TEST(Load, Merges) {
  const auto add = [](Json merge) {
    return [merge](Json& j) { j["model"]["merges"].push_back(merge); };
  };
  expect_llama2_refused(add("a zz"), {"`model.merges[3]`", "\"zz\""});
  expect_llama2_refused(add("b b"), {"`model.merges[3]`", "\"bb\""});
  expect_llama2_refused(add("ab"), {"`model.merges[3]`", "two tokens"});
  expect_llama2_refused(add("a b c"), {"`model.merges[3]`", "two tokens"});
  expect_llama2_refused(add(Json{"a"}), {"`model.merges[3]`", "1 tokens"});
  expect_llama2_refused(add(Json{"a", "b", "c"}), {"`model.merges[3]`", "3 tokens"});
  expect_llama2_refused(add(Json{"a", 3}), {"`model.merges[3]`"});
  expect_llama2_refused(add(3), {"`model.merges[3]`"});
}

TEST(Load, EveryByteMustHaveAToken) {
  expect_llama2_refused([](Json& j) { j["model"]["vocab"].erase("<0x7F>"); },
                        {"\"<0x7F>\"", "byte 0x7f"});
  expect_llama2_refused([](Json& j) { j["model"]["byte_fallback"] = false; },
                        {"`model.byte_fallback`", "byte 0x00"});
  // But at the byte level, where a token for the unknown must be one, if there is any.
  expect_gpt2_refused(
      [](Json& j) {
        j["model"]["vocab"].erase("z");
        j["model"]["unk_token"] = "<none>";
      },
      {"`model.unk_token`", "<none>"});
}

TEST(Load, OptionsOfTheModel) {
  expect_llama2_refused([](Json& j) { j["model"]["dropout"] = 0.1; }, {"`model.dropout`", "0.1"});
  expect_llama2_refused([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; },
                        {"`model.end_of_word_suffix`", "</w>"});
  expect_llama2_refused([](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
                        {"`model.continuing_subword_prefix`", "##"});
  expect_llama2_refused([](Json& j) { j["model"]["byte_fallback"] = 1; },
                        {"`model.byte_fallback`"});
}

TEST(Load, ComponentsThatAreNotSupported) {
  expect_llama2_refused(
      [](Json& j) {
        j["normalizer"] = {{"type", "NFKC"}};
      },
      {"`normalizer.type`", "NFKC"});
  expect_llama2_refused(
      [](Json& j) {
        j["normalizer"]["normalizers"][1] = {{"type", "NFC"}};
      },
      {"`normalizer.normalizers[1].type`", "NFC"});
  expect_llama2_refused(
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "Whitespace"}};
      },
      {"`pre_tokenizer.type`", "Whitespace"});
  expect_llama2_refused(
      [](Json& j) {
        j["decoder"] = {{"type", "CTC"}};
      },
      {"`decoder.type`", "CTC"});
}

TEST(Load, MalformedComponents) {
  expect_llama2_refused([](Json& j) { j["normalizer"] = "Prepend"; }, {"`normalizer`"});
  expect_llama2_refused([](Json& j) { j["normalizer"] = Json::object(); }, {"`normalizer.type`"});
  expect_llama2_refused([](Json& j) { j["normalizer"].erase("normalizers"); },
                        {"`normalizer.normalizers`"});
  expect_llama2_refused([](Json& j) { j["normalizer"]["normalizers"] = 3; },
                        {"`normalizer.normalizers`"});
  expect_llama2_refused([](Json& j) { j["decoder"]["decoders"][3]["content"] = "ab"; },
                        {"`decoder.decoders[3].content`", "one character"});
  expect_llama2_refused([](Json& j) { j["decoder"]["decoders"][3]["start"] = -1; },
                        {"`decoder.decoders[3].start`"});
  expect_llama2_refused([](Json& j) { j["decoder"]["decoders"][0]["pattern"] = Json::object(); },
                        {"`decoder.decoders[0].pattern`"});
  expect_gpt2_refused([](Json& j) { j["pre_tokenizer"].erase("add_prefix_space"); },
                      {"`pre_tokenizer.add_prefix_space`"});
}

TEST(Load, SplitPreTokenizers) {
  const auto split = [](const char* regex, const char* behavior) {
    return [=](Json& j) {
      j["pre_tokenizer"] = {{"type", "Split"},
                            {"pattern", {{"Regex", regex}}},
                            {"behavior", behavior},
                            {"invert", false}};
    };
  };
  expect_llama2_refused(split("(", "Isolated"), {"`pre_tokenizer.pattern.Regex`", "malformed"});
  expect_llama2_refused(split("a", "Kept"), {"`pre_tokenizer.behavior`", "Kept"});
}

TEST(Load, MetaspaceOptions) {
  const auto metaspace = [](Json options) {
    return [=](Json& j) {
      j["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}};
      j["pre_tokenizer"].update(options);
    };
  };
  expect_llama2_refused(metaspace({{"replacement", ""}}), {"`pre_tokenizer.replacement`"});
  expect_llama2_refused(metaspace({{"prepend_scheme", "last"}}),
                        {"`pre_tokenizer.prepend_scheme`", "last"});
  expect_llama2_refused(metaspace({{"add_prefix_space", false}}),
                        {"`pre_tokenizer.add_prefix_space`"});
}

TEST(Load, AddedTokens) {
  const auto add = [](Json token) {
    return [token](Json& j) { j["added_tokens"].push_back(token); };
  };
  expect_llama2_refused([](Json& j) { j["added_tokens"] = 3; }, {"`added_tokens`"});
  expect_llama2_refused([](Json& j) { j["added_tokens"][1].erase("lstrip"); },
                        {"`added_tokens[1].lstrip`"});
  expect_llama2_refused(add(added_token(265, "")), {"`added_tokens[3].content`", "empty"});
  expect_llama2_refused(add(added_token(1, "<s>")), {"`added_tokens[3].content`", "twice"});
  expect_llama2_refused(add(added_token(7, "b")), {"`added_tokens[3]`", "expected id 261", "7"});
  expect_llama2_refused(add(added_token(300, "new")),
                        {"`added_tokens[3]`", "expected id 265", "300"});
  expect_llama2_refused(add(added_token(-1, "new")), {"`added_tokens[3].id`"});
  expect_llama2_refused(
      [](Json& j) {
        j["model"]["vocab"]["abab"] = 265;  // leaves a hole, so that the next id is taken
        j["added_tokens"].push_back(added_token(265, "new"));
      },
      {"`added_tokens[3]`", "265", "abab"});
}

}  // namespace
}  // namespace gqa
