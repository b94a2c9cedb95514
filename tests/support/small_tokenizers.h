// Tokenizers of each kind that GGUF has, as tokenizer.json.
#pragma once

#include <fmt/core.h>

#include <string>

#include "io/json_value.h"

namespace gqa::test {

/// Llama 2's kind, of 268 ids: <unk>, <s>, </s>, bytes, a mark, three letters, pieces of them and a
/// token that is added; with all merges that make a piece.
inline Json pieces_tokenizer() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int b = 0; b < 256; ++b) vocab[fmt::format("<0x{:02X}>", b)] = b + 3;
  int id = 259;
  for (const char* piece : {"\u2581", "a", "b", "c", "ab", "bc", "\u2581a", "abc"}) {
    vocab[piece] = id++;
  }
  const auto token = [](int at, const char* text, bool special) {
    return Json{{"id", at},        {"content", text},     {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", special}};
  };
  Json json;
  json["version"] = "1.0";
  json["added_tokens"] = Json::array({token(0, "<unk>", true), token(1, "<s>", true),
                                      token(2, "</s>", true), token(267, "<user>", false)});
  json["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       Json::array(
           {Json{{"type", "Prepend"}, {"prepend", "\u2581"}},
            Json{{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}})}};
  json["pre_tokenizer"] = nullptr;
  json["model"] = {
      {"type", "BPE"},    {"unk_token", "<unk>"},
      {"fuse_unk", true}, {"byte_fallback", true},
      {"vocab", vocab},   {"merges", Json::array({"b c", "\u2581 a", "a b", "a bc", "ab c"})}};
  return json;
}

/// GPT-2's kind, of 256 bytes' symbols, two pieces and one end token.
inline Json words_tokenizer() {
  Json vocab = Json::object();
  int id = 0;
  const auto add = [&](int code_point) {
    std::string text;
    if (code_point < 0x80) {
      text += static_cast<char>(code_point);
    } else {
      text += static_cast<char>(0xc0 | code_point >> 6);
      text += static_cast<char>(0x80 | (code_point & 0x3f));
    }
    vocab[text] = id++;
  };
  for (int c = 0x21; c <= 0x7e; ++c) add(c);
  for (int c = 0xa1; c <= 0xac; ++c) add(c);
  for (int c = 0xae; c <= 0xff; ++c) add(c);
  for (int c = 0x100; c < 0x100 + 68; ++c) add(c);  // bytes that print nothing
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  Json json;
  json["version"] = "1.0";
  json["added_tokens"] = Json::array({Json{{"id", 258},
                                           {"content", "<|end|>"},
                                           {"single_word", false},
                                           {"lstrip", false},
                                           {"rstrip", false},
                                           {"normalized", false},
                                           {"special", true}}});
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  json["model"] = {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({"a b", "ab c"})}};
  return json;
}

}  // namespace gqa::test
