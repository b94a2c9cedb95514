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
#include "gqa/text.h"

namespace gqa::cli {
namespace {

[[noreturn]] void fail_reading(ErrorKind kind, const std::filesystem::path& file, int code) {
  throw Error(kind, fmt::format("{}: cannot read: {}", file.string(),
                                std::generic_category().message(code)));
}

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

void check_utf8(std::string_view text, std::string_view source) {
  if (const auto bad = find_invalid_utf8(text)) {
    throw Error(ErrorKind::bad_data,
                fmt::format("{}: not UTF-8: byte 0x{:02x} at offset {}", source,
                            static_cast<unsigned char>(text[*bad]), *bad));
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
  check_vocabulary(model.config(), tokenizer, dir);
  return {std::move(model), std::move(tokenizer)};
}

}  // namespace gqa::cli
