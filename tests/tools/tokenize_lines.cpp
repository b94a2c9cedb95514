// Encodes and decodes JSON lines, for comparison with other tokenizers: reads one JSON value a line
// from stdin (a string: encode it and decode the ids; a list of ids: decode it), writes one object
// a line: {"ids": ..., "text": ..., "text_all": ...}, text_all with special tokens. Also holds a
// TextStream to its word on each line.
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "gqa/tokenizer.h"

namespace {

std::string stream(const gqa::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  gqa::TextStream pieces(tokenizer, skip);
  std::string text;
  const auto add = [&](const std::string& piece) {
    nlohmann::json(piece).dump();  // throws where it is not UTF-8
    text += piece;
  };
  for (const int32_t id : ids) add(pieces.push(id));
  add(pieces.finish());
  return text;
}

std::string answer(const gqa::Tokenizer& tokenizer, const std::string& line) {
  const auto request = nlohmann::json::parse(line);
  const auto ids = request.is_string() ? tokenizer.encode(request.get<std::string>())
                                       : request.get<std::vector<int32_t>>();
  const std::string text = tokenizer.decode(ids);
  const std::string text_all = tokenizer.decode(ids, false);
  if (stream(tokenizer, ids, true) != text || stream(tokenizer, ids, false) != text_all) {
    throw std::runtime_error("stream and decode differ for " + line);
  }
  return nlohmann::json{{"ids", ids}, {"text", text}, {"text_all", text_all}}.dump();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenize_lines TOKENIZER.JSON\n");
    return 2;
  }
  try {
    const auto tokenizer = gqa::Tokenizer::load(argv[1]);
    std::ios::sync_with_stdio(false);
    for (std::string line; std::getline(std::cin, line);) {
      std::cout << answer(tokenizer, line) << '\n';
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "tokenize_lines: %s\n", e.what());
    return 1;
  }
  return 0;
}
