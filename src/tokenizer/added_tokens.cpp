#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <limits>

#include "core/text.h"
#include "io/json_value.h"
#include "tokenizer/components.h"

namespace gqa {
namespace {

constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max() - 1;

/// Unicode's White_Space.
bool is_space(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

/// Where the character that ends at `at` begins.
size_t character_before(std::string_view text, size_t at) {
  do {
    --at;
  } while ((static_cast<unsigned char>(text[at]) & 0xc0u) == 0x80u);
  return at;
}

size_t skip_spaces_left(std::string_view text, size_t at) {
  while (at > 0) {
    const size_t before = character_before(text, at);
    if (!is_space(utf8_decode(text, before))) break;
    at = before;
  }
  return at;
}

size_t skip_spaces_right(std::string_view text, size_t at) {
  while (at < text.size() && is_space(utf8_decode(text, at))) {
    at += static_cast<size_t>(utf8_length(text, at));
  }
  return at;
}

}  // namespace

AddedTokens AddedTokens::load(const JsonFields& top, const Normalizer& normalizer, const Bpe& bpe) {
  AddedTokens added;
  if (!top.has("added_tokens")) return added;
  const Json& list = top.get("added_tokens");
  if (!list.is_array()) {
    fail(ErrorKind::bad_data, "{}: expected a list, got {}", top.where("added_tokens"),
         list.type_name());
  }
  for (size_t i = 0; i < list.size(); ++i) {
    added.add(JsonFields(list[i], top.file(), fmt::format("added_tokens[{}]", i)), normalizer);
  }
  added.check_ids(top, bpe);
  return added;
}

void AddedTokens::add(const JsonFields& fields, const Normalizer& normalizer) {
  AddedToken t;
  t.content = fields.string("content");
  t.id = static_cast<int32_t>(fields.integer("id", 0, kMaxId));
  t.single_word = required_boolean(fields, "single_word");
  t.lstrip = required_boolean(fields, "lstrip");
  t.rstrip = required_boolean(fields, "rstrip");
  t.normalized = required_boolean(fields, "normalized");
  t.special = required_boolean(fields, "special");
  Piece piece = Piece::whole(t.content);
  if (t.normalized) normalizer.apply(piece);
  t.normal_form = piece.text;
  if (t.normal_form.empty()) fail(ErrorKind::bad_data, "{}: empty", fields.where("content"));
  if (!(t.normalized ? normalized_ : raw_).add(t.normal_form, tokens_.size())) {
    fail(ErrorKind::bad_data, "{}: \"{}\" is given twice", fields.where("content"), t.content);
  }
  if (t.single_word && !word_character_) {
    // \w as the package's engine has it, which counts the two joiners, too.
    word_character_ =
        std::make_shared<const Regex>("[\\w\\x{200C}\\x{200D}]", fields.where("single_word"));
  }
  tokens_.push_back(std::move(t));
}

void AddedTokens::check_ids(const JsonFields& top, const Bpe& bpe) const {
  std::unordered_map<int64_t, std::string_view> taken;
  for (const auto& [token, id] : bpe.vocab()) taken.emplace(id, token);
  int64_t next = static_cast<int64_t>(bpe.vocab().size());
  std::unordered_map<std::string_view, bool> contents;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& t = tokens_[i];
    const auto where = [&] {
      return fmt::format("{}: field `added_tokens[{}]`: \"{}\"", top.file().string(), i, t.content);
    };
    if (!contents.emplace(t.content, true).second) {
      fail(ErrorKind::bad_data, "{}: given twice", where());
    }
    const auto known = bpe.id_of(t.content);
    const int64_t expected = known ? *known : next++;
    if (t.id != expected) {
      fail(ErrorKind::bad_data, "{}: expected id {} ({}), got {}", where(), expected,
           known ? "as in the vocabulary" : "the next after the vocabulary", t.id);
    }
    const auto [owner, is_new] = taken.emplace(t.id, t.content);
    if (!is_new && owner->second != t.content) {
      fail(ErrorKind::bad_data, "{}: id {} is the one of \"{}\", too", where(), t.id,
           owner->second);
    }
  }
}

bool AddedTokens::stands_alone(std::string_view text, size_t begin, size_t end) const {
  const auto is_word = [&](size_t at) {
    const size_t n = static_cast<size_t>(utf8_length(text, at));
    return word_character_->matches_anywhere(text.substr(at, n));
  };
  return (begin == 0 || !is_word(character_before(text, begin))) &&
         (end == text.size() || !is_word(end));
}

void AddedTokens::split(const Piece& piece, const StringFinder& finder,
                        std::vector<Piece>& out) const {
  const std::string_view text = piece.text;
  size_t done = 0;
  const auto add = [&](size_t begin, size_t end, int32_t id) {
    if (begin >= end) return;
    out.push_back(piece.slice(begin, end));
    out.back().id = id;
  };
  for (const StringFinder::Match& match : finder.find(text)) {
    const AddedToken& token = tokens_[match.value];
    if (token.single_word && !stands_alone(text, match.begin, match.end)) continue;
    size_t begin = match.begin;
    // The match before may have taken these spaces.
    if (token.lstrip) begin = std::max(skip_spaces_left(text, begin), done);
    const size_t end = token.rstrip ? skip_spaces_right(text, match.end) : match.end;
    add(done, begin, Piece::kNoId);
    add(begin, end, token.id);
    done = end;
  }
  add(done, text.size(), Piece::kNoId);
}

std::vector<Piece> AddedTokens::split(std::string_view text, const Normalizer& normalizer) const {
  std::vector<Piece> found;
  split(Piece::whole(text), raw_, found);
  std::vector<Piece> pieces;
  for (Piece& piece : found) {
    if (piece.id != Piece::kNoId) {
      pieces.push_back(std::move(piece));
      continue;
    }
    normalizer.apply(piece);
    split(piece, normalized_, pieces);
  }
  return pieces;
}

}  // namespace gqa
