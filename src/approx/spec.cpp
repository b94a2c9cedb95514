// Specs of attention, from text and back.
#include <array>
#include <charconv>
#include <string>

#include "core/fail.h"
#include "gqa/attention_spec.h"

namespace gqa {

AttentionSpec parse_attention(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  int64_t a = 0;
  if (colon != std::string_view::npos) {
    std::from_chars(text.data() + colon + 1, text.data() + text.size(), a);
  }
  if (name == "exact") return ExactAttention{};
  if (name == "block") return BlockLocal{a};
  if (name == "window") return SlidingWindow{a};
  fail(ErrorKind::usage, "attention: no variant '{}'", text);
}

std::string attention_text(const AttentionSpec&) { return "exact"; }

}  // namespace gqa
