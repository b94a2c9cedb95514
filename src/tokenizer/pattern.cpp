#include "tokenizer/pattern.h"

#include <optional>
#include <utility>

#include "core/fail.h"
#include "tokenizer/regex.h"

namespace gqa {
namespace {

void add_unless_empty(std::vector<Span>& spans, size_t begin, size_t end) {
  if (begin != end) spans.push_back({begin, end, false});
}

std::vector<Span> find_literal(std::string_view text, std::string_view wanted) {
  std::vector<Span> spans;
  size_t done = 0;
  for (size_t at; (at = text.find(wanted, done)) != std::string_view::npos;) {
    add_unless_empty(spans, done, at);
    done = at + wanted.size();
    spans.push_back({at, done, true});
  }
  add_unless_empty(spans, done, text.size());
  return spans;
}

}  // namespace

Pattern Pattern::literal(std::string text) {
  Pattern p;
  // An empty string matches between all characters, as the empty expression does.
  if (text.empty()) return regex("", "");
  p.literal_ = std::move(text);
  return p;
}

Pattern Pattern::regex(const std::string& expression, const std::string& where) {
  Pattern p;
  p.regex_ = std::make_shared<const Regex>(expression, where);
  return p;
}

Pattern Pattern::load(const JsonFields& component) {
  const JsonFields pattern = component.object("pattern");
  if (pattern.has("String")) return literal(pattern.string("String"));
  if (pattern.has("Regex")) return regex(pattern.string("Regex"), pattern.where("Regex"));
  fail(ErrorKind::bad_data, "{}: expected an object with String or Regex",
       component.where("pattern"));
}

std::vector<Span> Pattern::find(std::string_view text) const {
  if (text.empty()) return {{0, 0, false}};
  if (!regex_) return find_literal(text, literal_);
  std::vector<Span> spans;
  size_t done = 0;
  regex_->for_each_match(text, [&](size_t begin, size_t end) {
    add_unless_empty(spans, done, begin);
    spans.push_back({begin, end, true});
    done = end;
  });
  add_unless_empty(spans, done, text.size());
  return spans;
}

Replacement Replacement::load(const JsonFields& component) {
  return {Pattern::load(component), component.string("content")};
}

std::string Replacement::apply(std::string_view text) const {
  std::string out;
  for (const Span& s : pattern.find(text)) {
    out += s.match ? std::string_view(content) : text.substr(s.begin, s.end - s.begin);
  }
  return out;
}

}  // namespace gqa
