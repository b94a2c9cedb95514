// Encoding and decoding, on tokenizers small enough to work out by hand.
#include "gqa/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "core/text.h"
#include "io/json_value.h"
#include "tiny_tokenizers.h"

namespace gqa {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;

const std::filesystem::path kTales =
    std::filesystem::path(GQA_SOURCE_DIR) / "models/tales-mha/tokenizer.json";

/// Decodes by a stream; fails where a piece is not UTF-8.
std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool skip_special = true) {
  TextStream stream(tokenizer, skip_special);
  std::string text;
  const auto add = [&](const std::string& piece) {
    EXPECT_FALSE(find_invalid_utf8(piece)) << piece;
    text += piece;
  };
  for (const int32_t id : ids) add(stream.push(id));
  add(stream.finish());
  return text;
}

TEST(Llama2Kind, MergesByRankAndLeftmostFirst) {
  const Tokenizer t = load_json(llama2_tokenizer());
  EXPECT_THAT(t.encode("ab"), ElementsAre(263));
  EXPECT_THAT(t.encode("abab"), ElementsAre(263, 262));  // ▁ab outranks abab
  EXPECT_THAT(t.encode("aabab"), ElementsAre(259, 260, 264));
  EXPECT_THAT(t.encode(" b  ab"), ElementsAre(259, 259, 261, 259, 263));
}

TEST(Llama2Kind, EmptyTextHasNoTokens) {
  const Tokenizer t = load_json(llama2_tokenizer());
  EXPECT_THAT(t.encode(""), IsEmpty());
  EXPECT_EQ(t.decode({}), "");
}

TEST(Llama2Kind, UnknownCharactersBecomeTheirBytes) {
  const Tokenizer t = load_json(llama2_tokenizer());
  EXPECT_THAT(t.encode("é"), ElementsAre(259, 3 + 0xc3, 3 + 0xa9));
  EXPECT_THAT(t.encode("\n"), ElementsAre(259, 3 + 0x0a));
}

TEST(Llama2Kind, AddedTokensCutTheTextAndEachPieceIsPrefixed) {
  const Tokenizer t = load_json(llama2_tokenizer());
  EXPECT_THAT(t.encode("<s>ab</s>b"), ElementsAre(1, 263, 2, 259, 261));
  EXPECT_THAT(t.encode("<s><s>"), ElementsAre(1, 1));
  EXPECT_THAT(t.encode("<s"), ElementsAre(259, 3 + '<', 3 + 's'));
}

TEST(Llama2Kind, DecodesWithOrWithoutSpecialTokens) {
  const Tokenizer t = load_json(llama2_tokenizer());
  const Ids ids = {1, 263, 2, 263};
  EXPECT_EQ(t.decode(ids), "ab ab");
  EXPECT_EQ(t.decode(ids, false), "<s> ab</s> ab");
  EXPECT_TRUE(t.is_special(1));
  EXPECT_FALSE(t.is_special(263));
  EXPECT_FALSE(t.is_special(999));
  EXPECT_EQ(t.id_limit(), 265);
}

TEST(Llama2Kind, LeavesOutUnknownIds) {
  const Tokenizer t = load_json(llama2_tokenizer());
  EXPECT_EQ(t.decode(Ids{263, 999, -1, 261}), "abb");
}

TEST(Llama2Kind, ARunOfBytesIsValidAsAWholeOrNotAtAll) {
  const Tokenizer t = load_json(llama2_tokenizer());
  EXPECT_EQ(t.decode(Ids{3 + 0xc3, 3 + 0xa9}), "é");
  EXPECT_EQ(t.decode(Ids{3 + 0xc3, 3 + 0xa9, 3 + 0xff}), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(t.decode(Ids{3 + 0xc3, 261, 3 + 0xa9}), "\uFFFDb\uFFFD");
}

TEST(Llama2Kind, StripsAtTheStartOnly) {
  const Tokenizer t = load_json(llama2_tokenizer());
  EXPECT_EQ(t.decode(Ids{259, 259, 263}), "  ab");
  EXPECT_EQ(streamed(t, {259, 259, 263}), "  ab");
}

TEST(Metaspace, PrependsToThePiecesThatItsSchemeNames) {
  const auto encode = [](const char* scheme, bool split, const char* text) {
    Json json = llama2_tokenizer();
    json["normalizer"] = nullptr;
    json["pre_tokenizer"] = {
        {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
    return load_json(json).encode(text);
  };
  EXPECT_THAT(encode("always", true, "ab<s>ab"), ElementsAre(263, 1, 263));
  EXPECT_THAT(encode("first", true, "ab<s>ab"), ElementsAre(263, 1, 262));
  EXPECT_THAT(encode("first", false, "<s>ab ab"), ElementsAre(1, 262, 263));
  EXPECT_THAT(encode("never", true, "ab<s>ab"), ElementsAre(262, 1, 262));
  EXPECT_THAT(encode("always", true, " ab"), ElementsAre(263));  // it begins with one already
}

TEST(ByteLevelKind, SplitsIntoGpt2Words) {
  const Tokenizer t = load_json(gpt2_tokenizer());
  EXPECT_THAT(t.encode("ab ab"), ElementsAre(256, 257));
  EXPECT_THAT(t.encode("a\nb"), ElementsAre('a', '\n', 'b'));
  EXPECT_THAT(t.encode("ab  ab"), ElementsAre(256, ' ', 257));
  EXPECT_THAT(t.encode("ab<|end|>ab"), ElementsAre(256, 258, 256));
}

TEST(ByteLevelKind, IgnoreMergesTakesWholeWords) {
  Json json = gpt2_tokenizer();
  json["model"]["merges"] = Json::array();
  EXPECT_THAT(load_json(json).encode(" ab"), ElementsAre(' ', 'a', 'b'));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(load_json(json).encode(" ab"), ElementsAre(257));
}

TEST(ByteLevelKind, BytesWithoutATokenAreUnknownOrLeftOut) {
  Json json = gpt2_tokenizer();
  json["added_tokens"] = Json::array();
  json["model"]["vocab"].erase("y");
  json["model"]["vocab"].erase("z");
  EXPECT_THAT(load_json(json).encode("azb xyz"), ElementsAre(256, ' ', 'x'));
  EXPECT_THAT(load_json(json).encode("yz"), ElementsAre());
  json["model"]["vocab"]["<unk>"] = 259;
  json["model"]["unk_token"] = "<unk>";
  EXPECT_THAT(load_json(json).encode("azb xyz"), ElementsAre('a', 259, 'b', ' ', 'x', 259, 259));
  json["model"]["fuse_unk"] = true;
  EXPECT_THAT(load_json(json).encode("azb xyzx"), ElementsAre('a', 259, 'b', ' ', 'x', 259, 'x'));
}

TEST(ByteLevelKind, LettersOfNewUnicodeVersionsAreLetters) {
  // U+31350 is a letter since Unicode 15, so it is one word with the letter after it, and a merge
  // of its last byte and that letter applies.
  Json json = gpt2_tokenizer();
  const std::string last_byte = byte_level_symbols("\x90");
  json["added_tokens"] = Json::array();
  json["model"]["vocab"][last_byte + "a"] = 258;
  json["model"]["merges"].push_back(Json{last_byte, "a"});
  EXPECT_THAT(load_json(json).encode("\U00031350a"), ElementsAre(0xf0, 0xb1, 0x8d, 258));
}

TEST(ByteLevelKind, InvalidBytesBecomeReplacementCharacters) {
  const Tokenizer t = load_json(gpt2_tokenizer());
  const auto check = [&](const Ids& ids, const std::string& text) {
    EXPECT_EQ(t.decode(ids), text);
    EXPECT_EQ(streamed(t, ids), text);
  };
  check({0xe2, 0x96, 0x81}, "▁");
  check({0xe2, 0x96}, "\uFFFD");  // one for the longest beginning
  check({0xe2, 0x96, 'a'}, "\uFFFDa");
  check({0xff, 0xfe}, "\uFFFD\uFFFD");
  check({0xe0, 0x80, 0x80}, "\uFFFD\uFFFD\uFFFD");  // overlong: not even two bytes belong together
  check({0xf0, 0x9f, 0x98, 0xe2, 0x96, 0x81}, "\uFFFD▁");
  check({0xed, 0xa0, 0x80}, "\uFFFD\uFFFD\uFFFD");  // a surrogate
}

TEST(AddedTokens, LongestOfTheLeftmost) {
  Json json = llama2_tokenizer();
  int id = 265;
  for (const char* token : {"xy", "xyzw", "yz"})
    json["added_tokens"].push_back(added_token(id++, token));
  const Tokenizer t = load_json(json);
  EXPECT_THAT(t.encode("xyzw"), ElementsAre(266));
  EXPECT_THAT(t.encode("xyz"), ElementsAre(265, 259, 3 + 'z'));
  EXPECT_THAT(t.encode("ayz"), ElementsAre(259, 260, 267));
}

TEST(AddedTokens, StripAndSingleWord) {
  Json json = llama2_tokenizer();
  Json strip = added_token(265, "xx");
  strip["lstrip"] = strip["rstrip"] = true;
  Json word = added_token(266, "yy");
  word["single_word"] = true;
  json["added_tokens"].push_back(strip);
  json["added_tokens"].push_back(word);
  const Tokenizer t = load_json(json);
  EXPECT_THAT(t.encode("a \u3000xx\n b"), ElementsAre(259, 260, 265, 259, 261));
  EXPECT_THAT(t.encode("yy.yy"), ElementsAre(266, 259, 3 + '.', 266));
  EXPECT_THAT(t.encode("yyé"), ElementsAre(259, 3 + 'y', 3 + 'y', 3 + 0xc3, 3 + 0xa9));
}

TEST(AddedTokens, NormalizedOnesAreFoundInNormalizedText) {
  Json json = llama2_tokenizer();
  Json token = added_token(265, "x y");
  token["normalized"] = true;
  json["added_tokens"].push_back(token);
  const Tokenizer t = load_json(json);
  EXPECT_THAT(t.encode("x y"), ElementsAre(265));  // as ▁x▁y
  EXPECT_THAT(t.encode("ax y"), ElementsAre(259, 260, 3 + 'x', 259, 3 + 'y'));
  EXPECT_EQ(t.decode(Ids{263, 265}), "ab x y");
}

TEST(Encode, RefusesInvalidUtf8AndNamesTheOffset) {
  const Tokenizer t = load_json(llama2_tokenizer());
  try {
    t.encode("ab\xc3(");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_data);
    EXPECT_THAT(e.what(), testing::HasSubstr("offset 2"));
  }
}

TEST(TextStream, HoldsBackNoMoreThanItMust) {
  const Tokenizer t = load_json(llama2_tokenizer());
  TextStream stream(t);
  EXPECT_EQ(stream.push(263), "ab");
  EXPECT_EQ(stream.push(3 + 0xc3), "");
  EXPECT_EQ(stream.push(3 + 0xa9), "");  // a byte to come could still spoil the run
  EXPECT_EQ(stream.push(263), "é ab");
  EXPECT_EQ(stream.push(3 + 0x21), "");
  EXPECT_EQ(stream.finish(), "!");
  EXPECT_EQ(stream.push(263), "ab");  // a new text
}

TEST(TextStream, PiecesAreTheDecodedText) {
  Json stop = llama2_tokenizer();
  stop["decoder"]["decoders"][3]["stop"] = 2;
  Json none = llama2_tokenizer();
  none["decoder"] = nullptr;
  Json fused = llama2_tokenizer();
  std::rotate(fused["decoder"]["decoders"].begin(), fused["decoder"]["decoders"].begin() + 2,
              fused["decoder"]["decoders"].end());
  std::mt19937 random(7);
  for (const Json& json : {llama2_tokenizer(), gpt2_tokenizer(), stop, none, fused}) {
    const Tokenizer t = load_json(json);
    for (int i = 0; i < 3000; ++i) {
      Ids ids(random() % 9);
      for (auto& id : ids)
        id = static_cast<int32_t>(random() % 3 != 0 ? random() % 270 : 255 + random() % 9);
      ASSERT_EQ(streamed(t, ids), t.decode(ids));
      ASSERT_EQ(streamed(t, ids, false), t.decode(ids, false));
    }
  }
}

TEST(Decode, StripsTheEndOfAFusedText) {
  Json json = llama2_tokenizer();
  json["decoder"]["decoders"][3]["stop"] = 2;
  const Tokenizer t = load_json(json);
  EXPECT_EQ(t.decode(Ids{263, 259, 259, 259}), "ab ");
  EXPECT_EQ(t.decode(Ids{263, 259, 263, 259}), "ab  ab");
}

TEST(Decode, JoinsBySpacesWithoutADecoder) {
  Json json = llama2_tokenizer();
  json["decoder"] = nullptr;
  EXPECT_EQ(load_json(json).decode(Ids{263, 261}), "▁ab b");
}

TEST(Tales, RoundTrip) {
  const Tokenizer t = Tokenizer::load(kTales);
  EXPECT_EQ(t.id_limit(), 512);
  const std::string text =
      read_text(kTales.parent_path() / "heldout.txt") + "naïve ▁\t\u200d\U0001F600";
  const Ids ids = t.encode(text);
  EXPECT_EQ(t.decode(ids), [&] {  // a U+2581 comes back as a space
    std::string expected = text;
    expected.replace(expected.find("▁"), 3, " ");
    return expected;
  }());
  EXPECT_EQ(streamed(t, ids), t.decode(ids));
  EXPECT_THAT(t.encode("Once upon a time"), ElementsAre(403, 407, 261, 378));
}

TEST(Tales, ManyThreadsEncodeAtOnce) {
  const Tokenizer t = Tokenizer::load(kTales);
  const std::string text = "Lily saw a big dog. \"Hello!\" é";
  const Ids expected = t.encode(text);
  std::vector<Ids> got(4);
  std::vector<std::thread> threads;
  for (Ids& g : got)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) g = t.encode(text);
    });
  for (auto& thread : threads) thread.join();
  for (const Ids& g : got) EXPECT_EQ(g, expected);
}

}  // namespace
}  // namespace gqa
