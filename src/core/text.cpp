#include "core/text.h"

#include "core/fail.h"
#include "core/mapped_file.h"

namespace gqa {
namespace {

uint32_t byte_at(std::string_view text, size_t at) { return static_cast<unsigned char>(text[at]); }

bool is_continuation(std::string_view text, size_t at) {
  return at < text.size() && (byte_at(text, at) & 0xc0u) == 0x80u;
}

}  // namespace

int utf8_length(std::string_view text, size_t at) {
  if (at >= text.size()) return 0;
  const uint32_t first = byte_at(text, at);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  if (!is_continuation(text, at + 1)) return 0;
  if (first < 0xe0) return 2;
  const uint32_t second = byte_at(text, at + 1);
  if (first < 0xf0) {
    if (first == 0xe0 && second < 0xa0) return 0;  // overlong
    if (first == 0xed && second > 0x9f) return 0;  // surrogates
    return is_continuation(text, at + 2) ? 3 : 0;
  }
  if (first == 0xf0 && second < 0x90) return 0;  // overlong
  if (first == 0xf4 && second > 0x8f) return 0;  // above U+10FFFF
  return is_continuation(text, at + 2) && is_continuation(text, at + 3) ? 4 : 0;
}

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const int n = utf8_length(text, at);
    if (n == 0) return at;
    at += static_cast<size_t>(n);
  }
  return std::nullopt;
}

char32_t utf8_decode(std::string_view text, size_t at) {
  const uint32_t first = byte_at(text, at);
  if (first < 0x80) return first;
  const auto low = [&](size_t i) { return byte_at(text, at + i) & 0x3fu; };
  if (first < 0xe0) return (first & 0x1fu) << 6 | low(1);
  if (first < 0xf0) return (first & 0x0fu) << 12 | low(1) << 6 | low(2);
  return (first & 0x07u) << 18 | low(1) << 12 | low(2) << 6 | low(3);
}

void utf8_append(std::string& text, char32_t c) {
  const auto put = [&](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0u | c >> 6);
    put(0x80u | (c & 0x3fu));
  } else if (c < 0x10000) {
    put(0xe0u | c >> 12);
    put(0x80u | (c >> 6 & 0x3fu));
    put(0x80u | (c & 0x3fu));
  } else {
    put(0xf0u | c >> 18);
    put(0x80u | (c >> 12 & 0x3fu));
    put(0x80u | (c >> 6 & 0x3fu));
    put(0x80u | (c & 0x3fu));
  }
}

std::string read_text(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (const auto bad = find_invalid_utf8(text)) {
    fail(ErrorKind::bad_data, "{}: not UTF-8: byte 0x{:02x} at offset {}", path.string(),
         byte_at(text, *bad), *bad);
  }
  return text;
}

}  // namespace gqa
