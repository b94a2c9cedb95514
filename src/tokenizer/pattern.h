// What is searched for in a text: a string or a regular expression.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace gqa {

/// A part of a text; `match`: the pattern matched it, else it lies between matches.
struct Span {
  size_t begin = 0, end = 0;
  bool match = false;
};

class Regex;

/// Thread-safety: const functions may run at the same time.
class Pattern {
 public:
  static Pattern literal(std::string text);
  /// Oniguruma's default syntax. `where` opens the message of the Error (bad_data) that a malformed
  /// expression throws.
  static Pattern regex(const std::string& expression, const std::string& where);
  /// Field `pattern` of a component: {"String": ...} or {"Regex": ...}.
  static Pattern load(const JsonFields& component);

  /// Cuts a text into spans, in order and without gaps, at the leftmost matches that do not
  /// overlap. Empty matches give empty spans. Throws Error (bad_data) where the search exceeds
  /// Oniguruma's limits.
  std::vector<Span> find(std::string_view text) const;

 private:
  std::string literal_;                 ///< where regex_ is null
  std::shared_ptr<const Regex> regex_;  ///< shared by copies
};

/// Every match of a pattern becomes `content`.
struct Replacement {
  Pattern pattern;
  std::string content;

  static Replacement load(const JsonFields& component);
  std::string apply(std::string_view text) const;
};

}  // namespace gqa
