#include "tokenizer/piece.h"

#include <algorithm>

#include "core/text.h"
#include "tokenizer/byte_level.h"

namespace gqa {
namespace {

/// How many of the bytes [begin, end) lie before `limit`.
size_t bytes_before(size_t limit, size_t begin, size_t end) {
  return limit > begin ? std::min(limit, end) - begin : 0;
}

/// Joins neighbours: a span goes into the one before it where `joins(previous, span)`.
template <typename Joins>
std::vector<Span> join(const std::vector<Span>& spans, const Joins& joins) {
  std::vector<Span> out;
  bool previous = false;  // what precedes the first span counts as no match
  for (const Span& s : spans) {
    if (!out.empty() && joins(previous, s.match)) {
      out.back().end = s.end;
    } else {
      out.push_back(s);
    }
    previous = s.match;
  }
  return out;
}

/// A run of matches a b c before a text d gives a, b and cd.
std::vector<Span> join_with_next(const std::vector<Span>& spans) {
  std::vector<Span> out;
  for (size_t i = 0; i < spans.size(); ++i) {
    out.push_back(spans[i]);
    const bool text_follows = i + 1 < spans.size() && !spans[i + 1].match;
    if (spans[i].match && text_follows) out.back().end = spans[++i].end;
  }
  return out;
}

}  // namespace

Piece Piece::whole(std::string_view text) {
  Piece p;
  p.text = text;
  p.first = true;
  p.first_bytes = static_cast<size_t>(utf8_length(text, 0));
  return p;
}

Piece Piece::slice(size_t begin, size_t end) const {
  Piece p;
  p.text = text.substr(begin, end - begin);
  p.first_bytes = bytes_before(first_bytes, begin, end);
  p.first = p.first_bytes > 0;
  return p;
}

void Piece::prepend(std::string_view prefix) {
  if (text.empty()) return;
  text.insert(0, prefix);
  if (first_bytes > 0) first_bytes += prefix.size();
}

void Piece::replace(const Pattern& pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  size_t out_first_bytes = 0;
  bool among_first = true;
  for (const Span& s : pattern.find(text)) {
    const auto part = s.match ? content : std::string_view(text).substr(s.begin, s.end - s.begin);
    size_t n = 0;
    if (!s.match) {
      n = bytes_before(first_bytes, s.begin, s.end);
    } else if (s.end > 0 ? s.end - 1 < first_bytes : first) {
      n = part.size();  // what is put in stems from the last character that went
    }
    if (among_first) out_first_bytes += n;
    among_first = among_first && n == part.size();
    out += part;
  }
  text = std::move(out);
  first_bytes = out_first_bytes;
}

void Piece::to_byte_level() {
  const size_t n = byte_level_symbols(std::string_view(text).substr(0, first_bytes)).size();
  text = byte_level_symbols(text);
  first_bytes = n;
}

void split(const Piece& piece, std::vector<Span> spans, SplitBehavior behavior,
           std::vector<Piece>& out) {
  switch (behavior) {
    case SplitBehavior::isolated:
      break;
    case SplitBehavior::removed:
      std::erase_if(spans, [](const Span& s) { return s.match; });
      break;
    case SplitBehavior::contiguous:
      spans = join(spans, [](bool previous, bool match) { return previous == match; });
      break;
    case SplitBehavior::merged_with_previous:
      spans = join(spans, [](bool previous, bool match) { return match && !previous; });
      break;
    case SplitBehavior::merged_with_next:
      spans = join_with_next(spans);
      break;
  }
  for (const Span& s : spans) {
    if (s.begin != s.end) out.push_back(piece.slice(s.begin, s.end));
  }
}

}  // namespace gqa
