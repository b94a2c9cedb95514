// Changes to a text before it is split.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "tokenizer/piece.h"

namespace gqa {

class Normalizer {
 public:
  /// Field `normalizer` of the file; without one a text stays as it is.
  static Normalizer load(const JsonFields& top);
  void apply(Piece& piece) const;
  bool to_byte_level() const { return to_byte_level_; }

 private:
  struct Prepend {
    std::string prefix;
  };
  struct ByteLevel {};
  std::vector<std::variant<Prepend, Replacement, ByteLevel>> steps_;
  bool to_byte_level_ = false;
};

}  // namespace gqa
