#include "convert/gguf_pieces.h"

#include <algorithm>
#include <unordered_map>

#include "core/fail.h"
#include "core/text.h"

namespace gqa {
namespace {

using Merges = std::vector<std::pair<std::string, std::string>>;

std::string pair_key(std::string_view left, std::string_view right) {
  return fmt::format("{} {}{}", left.size(), left, right);
}

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">");
}

/// What each merge makes -> how many other results come first.
std::unordered_map<std::string, int64_t> result_ranks(const TokenizerFile& file,
                                                      const Merges& merges) {
  std::unordered_map<std::string, int64_t> ranks;
  std::string last;
  for (const auto& [left, right] : merges) {
    if (is_byte_token(left) || is_byte_token(right)) {
      fail(ErrorKind::bad_data,
           "{}: field `model.merges`: a GGUF file can't have merges of byte tokens: got \"{}\" and "
           "\"{}\"",
           file.path.string(), left, right);
    }
    std::string result = left + right;
    if (result == last) continue;
    if (!ranks.emplace(result, std::ssize(ranks)).second) {
      fail(ErrorKind::bad_data,
           "{}: field `model.merges`: a GGUF file has one rank for all merges that make a token: "
           "expected those that make \"{}\" one after the other, got \"{}\" between them",
           file.path.string(), result, last);
    }
    last = std::move(result);
  }
  return ranks;
}

/// Whether a text can be a symbol while words are merged: a token, or a character that has none.
bool is_symbol(const std::unordered_set<std::string>& tokens, std::string_view text) {
  return static_cast<size_t>(utf8_length(text, 0)) == text.size() ||
         tokens.contains(std::string(text));
}

void check_all_pairs_merge(const TokenizerFile& file, const Merges& merges,
                           const std::unordered_set<std::string>& added) {
  std::unordered_set<std::string> pairs, tokens;
  for (const auto& [left, right] : merges) pairs.insert(pair_key(left, right));
  for (const auto& [token, id] : file.vocab) {
    if (!added.contains(token)) tokens.insert(token);
  }
  for (const std::string_view token : tokens) {
    for (size_t at = 0; (at += static_cast<size_t>(utf8_length(token, at))) < token.size();) {
      const auto left = token.substr(0, at), right = token.substr(at);
      if (!is_symbol(tokens, left) || !is_symbol(tokens, right)) continue;
      if (pairs.contains(pair_key(left, right))) continue;
      fail(ErrorKind::bad_data,
           "{}: field `model.merges`: llama.cpp joins all neighbours that are a token together: "
           "expected a merge of \"{}\" and \"{}\", as \"{}\" is a token, got none",
           file.path.string(), left, right, token);
    }
  }
}

}  // namespace

Merges ranked_merges(const TokenizerFile& file) {
  Merges merges;
  std::unordered_set<std::string> seen;
  for (auto m = file.merges.rbegin(); m != file.merges.rend(); ++m) {
    if (seen.insert(pair_key(m->first, m->second)).second) merges.push_back(*m);
  }
  std::reverse(merges.begin(), merges.end());
  return merges;
}

std::vector<float> piece_scores(const TokenizerFile& file, int64_t vocab_size,
                                const std::unordered_set<std::string>& added) {
  const Merges merges = ranked_merges(file);
  const auto ranks = result_ranks(file, merges);
  check_all_pairs_merge(file, merges, added);
  // What no merge makes comes last, and is never joined.
  std::vector<float> scores(static_cast<size_t>(vocab_size), -static_cast<float>(ranks.size()));
  for (const auto& [token, id] : file.vocab) {
    const auto rank = ranks.find(token);
    if (rank != ranks.end()) scores[static_cast<size_t>(id)] = -static_cast<float>(rank->second);
  }
  return scores;
}

}  // namespace gqa
