// Cutting a text into the words that the model encodes one by one.
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "tokenizer/metaspace.h"
#include "tokenizer/piece.h"

namespace gqa {

class PreTokenizer {
 public:
  /// Field `pre_tokenizer` of the file; without one each piece is one word.
  static PreTokenizer load(const JsonFields& top);
  /// Splits what is no added token.
  std::vector<Piece> apply(std::vector<Piece> pieces) const;
  bool to_byte_level() const { return to_byte_level_; }

 private:
  struct Split {
    Pattern pattern;
    SplitBehavior behavior;
    bool invert;  ///< what lies between matches counts as matched
  };
  struct ByteLevel {
    bool add_prefix_space;
    bool use_regex;
    Pattern words;
  };
  struct Spaces {
    Metaspace options;
    std::string replacement;
    Pattern space, mark;
  };
  using Step = std::variant<Split, ByteLevel, Spaces>;

  void add(const JsonFields& fields, const std::string& type);
  static void run(const Split& step, const Piece& piece, std::vector<Piece>& out);
  static void run(const ByteLevel& step, Piece piece, std::vector<Piece>& out);
  static void run(const Spaces& step, Piece piece, std::vector<Piece>& out);

  std::vector<Step> steps_;
  bool to_byte_level_ = false;
};

}  // namespace gqa
