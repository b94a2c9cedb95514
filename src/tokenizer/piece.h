// Parts of a text on their way to token ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pattern.h"

namespace gqa {

/// A part of the text, or an added token that was found in it.
struct Piece {
  static constexpr int32_t kNoId = -1;

  std::string text;
  int32_t id = kNoId;  ///< the added token's
  /// Some prefixes go before the first piece of a text alone, so each piece knows whether its first
  /// byte stems from the text's first character, and how many of its leading bytes do: a slice that
  /// starts among them is a first piece, too.
  bool first = false;
  size_t first_bytes = 0;

  static Piece whole(std::string_view text);
  Piece slice(size_t begin, size_t end) const;
  /// Nothing happens to an empty piece.
  void prepend(std::string_view prefix);
  void replace(const Pattern& pattern, std::string_view content);
  /// Each byte becomes its byte-level symbol.
  void to_byte_level();
};

/// What becomes of the spans that a pattern matches when a piece is split by it.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Appends what the piece is split into; empty parts are left out.
void split(const Piece& piece, std::vector<Span> spans, SplitBehavior behavior,
           std::vector<Piece>& out);

}  // namespace gqa
