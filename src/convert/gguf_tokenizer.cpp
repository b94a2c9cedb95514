#include "convert/gguf_tokenizer.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "convert/gguf_pieces.h"
#include "core/fail.h"
#include "io/json_value.h"
#include "tokenizer/components.h"
#include "tokenizer/metaspace.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

// Kinds of tokens, as the format numbers them.
constexpr int32_t normal_type = 1, unknown_type = 2, control_type = 3, user_defined_type = 4,
                  unused_type = 5, byte_type = 6;

constexpr std::string_view space_mark = "\u2581";

// ---- which tokenizer it is ----

/// The patterns that matter match every character, so that to remove what lies between matches is
/// to keep the matches.
std::string split_text(const JsonFields& fields) {
  const Json& pattern = fields.get("pattern");
  const bool matches =
      fields.string("behavior") == (fields.boolean("invert", false) ? "Removed" : "Isolated");
  const bool plain =
      matches && pattern.is_object() && pattern.contains("Regex") && pattern["Regex"].is_string();
  if (!plain) return fields.json().dump();
  return fmt::format("Split({})", pattern["Regex"].get<std::string>());
}

/// A component and those of its options that matter.
std::string component_text(const JsonFields& fields, const std::string& type) {
  if (type == "Split") return split_text(fields);
  if (type == "Digits") {
    return fields.boolean("individual_digits", false) ? "Digits(each)" : "Digits(runs)";
  }
  if (type == "ByteLevel") {
    return fmt::format("ByteLevel({}{})", fields.boolean("add_prefix_space", true) ? "space " : "",
                       fields.boolean("use_regex", true) ? "words" : "");
  }
  if (type == "Prepend") return fmt::format("Prepend({})", fields.string("prepend"));
  if (type == "Replace") {
    const Json& pattern = fields.get("pattern");
    if (pattern.is_object() && pattern.contains("String") && pattern["String"].is_string()) {
      return fmt::format("Replace({},{})", pattern["String"].get<std::string>(),
                         fields.string("content"));
    }
  }
  if (type == "Metaspace") {
    const Metaspace m = Metaspace::load(fields);
    const bool never = m.prepend == Metaspace::Prepend::never;
    if (utf8(m.replacement) == space_mark) {
      return fmt::format("Metaspace({}{})", never ? "" : "prepend ", m.split ? "split" : "");
    }
  }
  return fields.json().dump();
}

std::string components_text(const JsonFields& top, const char* field, const char* list) {
  std::string text;
  for_each_component(top, field, list, [&](const JsonFields& fields, const std::string& type) {
    text += (text.empty() ? "" : " ") + component_text(fields, type);
  });
  return text;
}

/// A pre-tokenizer of byte-level words that llama.cpp knows.
struct KnownWords {
  std::string_view pre_tokenizer;
  bool ignore_merges;
  std::string_view name;
};
constexpr KnownWords known_words[] = {
    {"ByteLevel(words)", false, "gpt-2"},
    {"Digits(each) ByteLevel(words)", false, "smollm"},
    // Two names of one pattern, which differ in what they do with words that are tokens.
    {R"(Split((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+) ByteLevel())",
     true, "llama-bpe"},
    {R"(Split((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+) ByteLevel())",
     false, "smaug-bpe"},
    {R"(Split((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+) ByteLevel())",
     false, "qwen2"},
    {R"(Split([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+) ByteLevel())",
     true, "tekken"},
};

[[noreturn]] void refuse(const JsonFields& top, const std::string& normalizer,
                         const std::string& pre_tokenizer, bool ignore_merges) {
  const auto or_none = [](const std::string& text) { return text.empty() ? "none" : text; };
  fail(ErrorKind::bad_data,
       "{}: llama.cpp has no name for this kind of tokenizer: normalizer {}, pre_tokenizer {}, "
       "ignore_merges {}",
       top.file().string(), or_none(normalizer), or_none(pre_tokenizer), ignore_merges);
}

// ---- tokens ----

void set_token(GgufTokenizer& t, const fs::path& file, int64_t id, const std::string& text,
               int32_t type) {
  if (id < 0 || id >= std::ssize(t.tokens)) {
    fail(ErrorKind::bad_data, "{}: token \"{}\": expected an id below {}, got {}", file.string(),
         text, t.tokens.size(), id);
  }
  t.tokens[static_cast<size_t>(id)] = text;
  t.types[static_cast<size_t>(id)] = type;
}

/// llama.cpp finds tokens by their text, and stops where two are the same.
void name_holes_and_check_names(GgufTokenizer& t, const fs::path& file) {
  std::unordered_set<std::string_view> seen;
  for (size_t id = 0; id < t.tokens.size(); ++id) {
    if (t.types[id] == unused_type) t.tokens[id] = fmt::format("[PAD{}]", id);
    if (seen.insert(t.tokens[id]).second && !t.tokens[id].empty()) continue;
    fail(ErrorKind::bad_data, "{}: token {}: expected a text of its own, got \"{}\"", file.string(),
         id, t.tokens[id]);
  }
}

/// Fills tokens and types. Gives the texts of added tokens.
std::unordered_set<std::string> fill_tokens(GgufTokenizer& t, const TokenizerFile& file,
                                            const JsonFields& top, int64_t vocab_size) {
  t.tokens.resize(static_cast<size_t>(vocab_size));
  t.types.assign(static_cast<size_t>(vocab_size), unused_type);
  for (const auto& [text, id] : file.vocab) set_token(t, file.path, id, text, normal_type);
  if (t.model == "llama") {
    for (int byte = 0; byte < 256; ++byte) {
      const auto found = std::ranges::find(t.tokens, fmt::format("<0x{:02X}>", byte));
      if (found != t.tokens.end()) t.types[found - t.tokens.begin()] = byte_type;
    }
  }
  std::unordered_set<std::string> added;
  if (top.has("added_tokens")) {
    for (const Json& entry : top.get("added_tokens")) {
      const JsonFields token(entry, file.path, "added_tokens");
      const std::string text = token.string("content");
      set_token(t, file.path, token.integer("id", 0, vocab_size - 1), text,
                token.boolean("special", false) ? control_type : user_defined_type);
      added.insert(text);
      for (const char* option : {"lstrip", "rstrip", "single_word"}) {
        if (!token.boolean(option, false)) continue;
        t.notes.push_back(
            fmt::format("token \"{}\": llama.cpp does not heed its option `{}`", text, option));
      }
    }
  }
  return added;
}

void set_unknown(GgufTokenizer& t, const JsonFields& top) {
  const auto text = top.object("model").maybe_string("unk_token");
  const auto found = text ? std::ranges::find(t.tokens, *text) : t.tokens.end();
  if (found == t.tokens.end()) return;
  t.unknown = static_cast<int32_t>(found - t.tokens.begin());
  t.types[static_cast<size_t>(*t.unknown)] = unknown_type;
}

/// What the post-processor's template puts around one text.
void read_template(GgufTokenizer& t, const JsonFields& fields) {
  const Json& single = fields.get("single");
  if (!single.is_array() || single.empty()) return;
  const auto is_special = [](const Json& item) {
    return item.is_object() && item.contains("SpecialToken");
  };
  t.adds_first = is_special(single.front());
  t.adds_last = is_special(single.back());
  if (!*t.adds_first) return;
  const JsonFields first(single.front()["SpecialToken"], fields.file(), "post_processor.single[0]");
  const auto found = std::ranges::find(t.tokens, first.string("id"));
  if (found != t.tokens.end()) t.first = static_cast<int32_t>(found - t.tokens.begin());
}

// ---- the two kinds ----

constexpr const char* space_note =
    "llama.cpp puts a space before a text, and what follows a special token, even where "
    "tokenizer.json would not: where there is one already, or inside a text";

void fill_pieces(GgufTokenizer& t, const TokenizerFile& file, const JsonFields& top,
                 const std::unordered_set<std::string>& added, const std::string& normalizer,
                 const std::string& pre_tokenizer, bool ignore_merges) {
  const bool legacy = normalizer == "Prepend(\u2581) Replace( ,\u2581)" && pre_tokenizer.empty();
  const bool bare = normalizer == "Replace( ,\u2581)" && pre_tokenizer.empty();
  const bool metaspace = normalizer.empty() && pre_tokenizer.starts_with("Metaspace(");
  if (ignore_merges || (!legacy && !bare && !metaspace)) {
    refuse(top, normalizer, pre_tokenizer, ignore_merges);
  }
  const bool prepends = metaspace && pre_tokenizer.find("prepend") != std::string::npos;
  t.add_space_prefix = legacy || prepends;
  if (prepends) t.notes.emplace_back(space_note);
  if (pre_tokenizer.find("split") != std::string::npos) {
    // Words end before each mark then; llama.cpp merges on.
    for (const auto& [left, right] : file.merges) {
      if (right.find(space_mark) == std::string::npos) continue;
      fail(
          ErrorKind::bad_data,
          "{}: field `pre_tokenizer.split`: llama.cpp does not split words, so that it would merge "
          "\"{}\" and \"{}\": expected false",
          file.path.string(), left, right);
    }
  }
  t.scores = piece_scores(file, std::ssize(t.tokens), added);
}

void fill_merges(GgufTokenizer& t, const TokenizerFile& file, const JsonFields& top,
                 const std::string& normalizer, const std::string& pre_tokenizer,
                 bool ignore_merges) {
  for (const KnownWords& known : known_words) {
    if (known.pre_tokenizer == pre_tokenizer && known.ignore_merges == ignore_merges) {
      t.pre = known.name;
    }
  }
  if (t.pre.empty() || !normalizer.empty()) {
    refuse(top, normalizer, pre_tokenizer, ignore_merges);
  }
  if (t.pre == "tekken") {
    t.notes.emplace_back("llama.cpp cuts words with combining marks differently");
  }
  for (const auto& [left, right] : ranked_merges(file)) {
    if ((left + right).find(' ') != std::string::npos) {
      fail(ErrorKind::bad_data,
           "{}: field `model.merges`: expected no space, got \"{}\" and \"{}\"", file.path.string(),
           left, right);
    }
    t.merges.push_back(left + " " + right);
  }
}

}  // namespace

GgufTokenizer gguf_tokenizer(const fs::path& path, int64_t vocab_size) {
  const TokenizerFile file = TokenizerFile::read(path);
  const JsonFields top(file.rest, file.path);
  const std::string normalizer = components_text(top, "normalizer", "normalizers");
  const std::string pre_tokenizer = components_text(top, "pre_tokenizer", "pretokenizers");
  const bool ignore_merges = top.object("model").boolean("ignore_merges", false);
  const bool bytes = (normalizer + pre_tokenizer).find("ByteLevel(") != std::string::npos;
  GgufTokenizer t;
  t.model = bytes ? "gpt2" : "llama";
  const auto added = fill_tokens(t, file, top, vocab_size);
  if (bytes) {
    fill_merges(t, file, top, normalizer, pre_tokenizer, ignore_merges);
  } else {
    fill_pieces(t, file, top, added, normalizer, pre_tokenizer, ignore_merges);
  }
  name_holes_and_check_names(t, path);
  set_unknown(t, top);
  for_each_component(top, "post_processor", "processors",
                     [&](const JsonFields& fields, const std::string& type) {
                       if (type == "TemplateProcessing") read_template(t, fields);
                     });
  return t;
}

void add_tokenizer(GgufMetadata& metadata, const GgufTokenizer& t) {
  metadata.add_string("tokenizer.ggml.model", t.model);
  if (!t.pre.empty()) metadata.add_string("tokenizer.ggml.pre", t.pre);
  metadata.add_strings("tokenizer.ggml.tokens", t.tokens);
  metadata.add_i32s("tokenizer.ggml.token_type", t.types);
  if (t.model == "llama") {
    metadata.add_f32s("tokenizer.ggml.scores", t.scores);
    metadata.add_bool("tokenizer.ggml.add_space_prefix", t.add_space_prefix);
  } else {
    metadata.add_strings("tokenizer.ggml.merges", t.merges);
  }
  if (t.unknown) metadata.add_u32("tokenizer.ggml.unknown_token_id", *t.unknown);
}

}  // namespace gqa
