#include "tokenizer/byte_level.h"

#include <array>
#include <cstdint>

#include "core/text.h"

namespace gqa {
namespace {

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

constexpr uint32_t kSymbols = 324;  // one more than the highest symbol: 256 and 68 shifted bytes

struct Alphabet {
  std::array<uint16_t, 256> symbol{};
  std::array<int16_t, kSymbols> byte{};

  constexpr Alphabet() {
    byte.fill(-1);
    uint32_t shifted = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const uint32_t s = stands_for_itself(b) ? b : shifted++;
      symbol[b] = static_cast<uint16_t>(s);
      byte[s] = static_cast<int16_t>(b);
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

std::string byte_level_symbols(std::string_view text) {
  std::string out;
  out.reserve(text.size() * 2);
  for (const char c : text) utf8_append(out, kAlphabet.symbol[static_cast<unsigned char>(c)]);
  return out;
}

std::optional<std::string> byte_level_bytes(std::string_view token) {
  std::string out;
  for (size_t at = 0; at < token.size(); at += static_cast<size_t>(utf8_length(token, at))) {
    const char32_t c = utf8_decode(token, at);
    if (c >= kSymbols || kAlphabet.byte[c] < 0) return std::nullopt;
    out.push_back(static_cast<char>(kAlphabet.byte[c]));
  }
  return out;
}

}  // namespace gqa
