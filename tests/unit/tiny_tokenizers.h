// Tokenizers of a few tokens, as JSON to change and as files.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "gqa/error.h"
#include "gqa/tokenizer.h"
#include "io/json_value.h"
#include "support/files.h"
#include "support/temp_dir.h"
#include "tokenizer/byte_level.h"

namespace gqa {

/// tokenizer.json of this content, in a folder that goes with the object.
class TokenizerFolder {
 public:
  std::filesystem::path write(const std::string& content) const {
    test::put_file(dir_ / "tokenizer.json", content);
    return dir_ / "tokenizer.json";
  }

 private:
  test::TempDir dir_;
};

inline Tokenizer load_json(const Json& json) {
  const TokenizerFolder folder;
  return Tokenizer::load(folder.write(json.dump()));
}

/// The message of the Error that loading throws; "" where it loads. `kind`: that of the Error.
inline std::string load_error(const std::string& content, ErrorKind* kind = nullptr) {
  const TokenizerFolder folder;
  try {
    Tokenizer::load(folder.write(content));
  } catch (const Error& e) {
    if (kind != nullptr) *kind = e.kind();
    return e.what();
  }
  return "";
}

inline Json added_token(int id, const std::string& content, bool special = false) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

/// Ids: <unk> 0, <s> 1, </s> 2, bytes 3 to 258, then "▁" 259, a 260, b 261, ab 262, ▁ab 263, abab
/// 264.
inline Json llama2_tokenizer() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int b = 0; b < 256; ++b) vocab[fmt::format("<0x{:02X}>", b)] = 3 + b;
  int id = 259;
  for (const char* token : {"▁", "a", "b", "ab", "▁ab", "abab"}) vocab[token] = id++;
  const auto replace = [](const char* from, const char* to) {
    return Json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
  };
  return {
      {"version", "1.0"},
      {"added_tokens",
       {added_token(0, "<unk>", true), added_token(1, "<s>", true), added_token(2, "</s>", true)}},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers", {Json{{"type", "Prepend"}, {"prepend", "▁"}}, replace(" ", "▁")}}}},
      {"pre_tokenizer", nullptr},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {replace("▁", " "), Json{{"type", "ByteFallback"}}, Json{{"type", "Fuse"}},
          Json{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"ignore_merges", false},
        {"vocab", vocab},
        {"merges", {"a b", "▁ ab", "ab ab"}}}}};
}

/// Ids: the bytes 0 to 255, then ab 256, Ġab 257; <|end|> 258 is added and special.
inline Json gpt2_tokenizer() {
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    vocab[byte_level_symbols({&byte, 1})] = b;
  }
  vocab["ab"] = 256;
  vocab["Ġab"] = 257;
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  return {{"added_tokens", {added_token(258, "<|end|>", true)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"vocab", vocab},
            {"merges", Json::array({Json{"a", "b"}, Json{"Ġ", "ab"}})}}}};
}

}  // namespace gqa
