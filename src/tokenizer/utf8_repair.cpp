#include "tokenizer/utf8_repair.h"

#include <algorithm>
#include <utility>

#include "core/text.h"

namespace gqa {
namespace {

/// How many bytes from `at` on could begin a character; 1 where not even the first could.
size_t subpart_length(std::string_view text, size_t at) {
  // The first byte bounds the second one alone: what any third and fourth completes, 0x80 does.
  for (size_t n = std::min<size_t>(3, text.size() - at); n > 1; --n) {
    std::string guess(text.substr(at, n));
    while (guess.size() < 4) {
      guess.push_back('\x80');
      if (utf8_length(guess, 0) == static_cast<int>(guess.size())) return n;
    }
  }
  return 1;
}

/// Whether the text ends in the middle of a character that begins at `at`.
bool ends_inside(std::string_view text, size_t at) {
  const unsigned first = static_cast<unsigned char>(text[at]);
  if (first < 0xc2 || first > 0xf4) return false;
  const size_t whole = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  const size_t there = text.size() - at;
  return there < whole && subpart_length(text, at) == there;
}

}  // namespace

std::string Utf8Repair::push(std::string_view bytes) {
  const std::string text = std::exchange(pending_, {}).append(bytes);
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (const int n = utf8_length(text, at); n > 0) {
      out.append(text, at, static_cast<size_t>(n));
      at += static_cast<size_t>(n);
    } else if (ends_inside(text, at)) {
      pending_ = text.substr(at);
      break;
    } else {
      out += kReplacementCharacter;
      at += subpart_length(text, at);
    }
  }
  return out;
}

std::string Utf8Repair::finish() {
  return std::exchange(pending_, {}).empty() ? "" : std::string(kReplacementCharacter);
}

}  // namespace gqa
