// Tokens that are found in a text before the model sees it.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/piece.h"
#include "tokenizer/regex.h"

namespace gqa {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;             ///< not beside a letter or digit
  bool lstrip = false, rstrip = false;  ///< takes the spaces on its left or right with it
  bool normalized = false;              ///< found in the normalised text, in its normalised form
  bool special = false;                 ///< left out of decoded text on demand
  std::string normal_form;              ///< the content, normalised if `normalized`
};

/// Finds the leftmost and, of several there, the longest of a set of strings. No string is a
/// candidate inside an earlier match.
class StringFinder {
 public:
  /// False where the string is there already, or is empty.
  bool add(std::string_view text, size_t value);
  struct Match {
    size_t begin, end, value;
  };
  std::vector<Match> find(std::string_view text) const;

 private:
  struct Node {
    std::vector<std::pair<char, size_t>> children;
    size_t value = kNone;
  };
  static constexpr size_t kNone = static_cast<size_t>(-1);
  size_t child(size_t node, char byte) const;

  std::vector<Node> nodes_{1};
  std::bitset<256> first_;  ///< the bytes that strings start with
};

class AddedTokens {
 public:
  /// Field `added_tokens` of the file. Throws Error (bad_data) where a token is given twice, or has
  /// an id that is another's or not the one that the `tokenizers` package gives it: the
  /// vocabulary's, or else the next after the vocabulary.
  static AddedTokens load(const JsonFields& top, const Normalizer& normalizer, const Bpe& bpe);

  const std::vector<AddedToken>& all() const { return tokens_; }

  /// Cuts a text at the tokens that are found in it as it stands, normalises what is left, and cuts
  /// that at the tokens that are found in normalised text.
  std::vector<Piece> split(std::string_view text, const Normalizer& normalizer) const;

 private:
  void add(const JsonFields& fields, const Normalizer& normalizer);
  void check_ids(const JsonFields& top, const Bpe& bpe) const;
  void split(const Piece& piece, const StringFinder& finder, std::vector<Piece>& out) const;
  bool stands_alone(std::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;
  StringFinder raw_, normalized_;
  std::shared_ptr<const Regex> word_character_;  ///< where a token has single_word
};

}  // namespace gqa
