#include "cli/input.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>
#include <utility>

#include "gqa/config.h"
#include "gqa/error.h"
#include "gqa/generate.h"

namespace gqa::cli {
namespace {

/// Length of the valid UTF-8 sequence at `at`; 0 where there is none (RFC 3629, table 3-7 of
/// Unicode).
size_t sequence_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto tail = [&](size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const unsigned low = first == 0xe0 ? 0xa0 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : 0xbf;  // no surrogates
    return byte(1) >= low && byte(1) <= high && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const unsigned low = first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xf4 ? 0x8f : 0xbf;
    return byte(1) >= low && byte(1) <= high && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

[[noreturn]] void fail_reading(ErrorKind kind, const std::filesystem::path& file, int code) {
  throw Error(kind, fmt::format("{}: cannot read: {}", file.string(),
                                std::generic_category().message(code)));
}

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

void check_utf8(std::string_view text, std::string_view source) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = sequence_length(text, at);
    if (length == 0) {
      throw Error(ErrorKind::bad_data,
                  fmt::format("{}: not UTF-8: byte 0x{:02x} at offset {}", source,
                              static_cast<unsigned char>(text[at]), at));
    }
    at += length;
  }
}

std::string read_text_file(const std::filesystem::path& file) {
  const std::unique_ptr<std::FILE, CloseFile> in(std::fopen(file.c_str(), "rb"));
  if (!in) fail_reading(ErrorKind::no_input, file, errno);
  std::string text;
  char buffer[1 << 16];
  errno = 0;
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, in.get())) text.append(buffer, n);
  if (std::ferror(in.get()) != 0) {
    fail_reading(errno == EISDIR ? ErrorKind::no_input : ErrorKind::io, file, errno);
  }
  if (text.empty()) {
    throw Error(ErrorKind::bad_data,
                fmt::format("{}: expected a text, got an empty file", file.string()));
  }
  check_utf8(text, file.string());
  return text;
}

LoadedModel load_model(const std::filesystem::path& dir, const Progress& progress) {
  load_config(dir);  // the folder's own errors first, and before the weights are read
  Tokenizer tokenizer = Tokenizer::load(dir / "tokenizer.json");
  Model model = Model::load(dir, progress);
  check_vocabulary(model, tokenizer, dir);
  return {std::move(model), std::move(tokenizer)};
}

}  // namespace gqa::cli
