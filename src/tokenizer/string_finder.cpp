#include "tokenizer/added_tokens.h"

namespace gqa {

size_t StringFinder::child(size_t node, char byte) const {
  for (const auto& [b, next] : nodes_[node].children) {
    if (b == byte) return next;
  }
  return kNone;
}

bool StringFinder::add(std::string_view text, size_t value) {
  if (text.empty()) return false;
  size_t node = 0;
  for (const char byte : text) {
    size_t next = child(node, byte);
    if (next == kNone) {
      next = nodes_.size();
      nodes_[node].children.emplace_back(byte, next);
      nodes_.emplace_back();
    }
    node = next;
  }
  if (nodes_[node].value != kNone) return false;
  nodes_[node].value = value;
  first_.set(static_cast<unsigned char>(text[0]));
  return true;
}

std::vector<StringFinder::Match> StringFinder::find(std::string_view text) const {
  std::vector<Match> matches;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    if (first_.test(static_cast<unsigned char>(text[begin]))) {
      size_t value = 0;
      size_t node = 0;
      for (size_t at = begin; at < text.size(); ++at) {
        node = child(node, text[at]);
        if (node == kNone) break;
        if (nodes_[node].value == kNone) continue;
        end = at + 1;
        value = nodes_[node].value;
      }
      if (end > begin) matches.push_back({begin, end, value});
    }
    begin = end > begin ? end : begin + 1;
  }
  return matches;
}

}  // namespace gqa
