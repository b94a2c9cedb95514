// Bytes to UTF-8 text, with U+FFFD where they are none.
#pragma once

#include <string>
#include <string_view>

namespace gqa {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

/// Takes bytes piece by piece. Each longest run of bytes that begins a character but doesn't
/// complete it becomes one U+FFFD (the Unicode standard's substitution of maximal subparts).
class Utf8Repair {
 public:
  /// The characters that are complete now.
  std::string push(std::string_view bytes);
  /// One U+FFFD where a character was left incomplete.
  std::string finish();

 private:
  std::string pending_;  ///< the beginning of a character
};

}  // namespace gqa
