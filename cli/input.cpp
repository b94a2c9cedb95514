#include "cli/input.h"

#include <fmt/format.h>

#include <algorithm>
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

/// All bytes, of which there must be some.
std::string read_bytes(const std::filesystem::path& file) {
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
  return text;
}

}  // namespace

void check_utf8(std::string_view text, std::string_view source) {
  if (const auto bad = find_invalid_utf8(text)) {
    throw Error(ErrorKind::bad_data,
                fmt::format("{}: not UTF-8: byte 0x{:02x} at offset {}", source,
                            static_cast<unsigned char>(text[*bad]), *bad));
  }
}

std::string read_text_file(const std::filesystem::path& file) {
  std::string text = read_bytes(file);
  check_utf8(text, file.string());
  return text;
}

std::vector<std::string> read_lines(const std::filesystem::path& file) {
  const std::string text = read_bytes(file);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string& line = lines.emplace_back(text.substr(at, end - at));
    if (line.ends_with('\r') && end < text.size()) line.pop_back();
    check_utf8(line, fmt::format("{}:{}", file.string(), lines.size()));
    at = end + 1;
  }
  return lines;
}

LoadedModel load_model(const std::filesystem::path& dir, WeightDType weight_dtype,
                       const Progress& progress) {
  load_config(dir);  // the folder's own errors first, and before the weights are read
  Tokenizer tokenizer = Tokenizer::load(dir / "tokenizer.json");
  Model model = Model::load(dir, weight_dtype, progress);
  check_vocabulary(model.config(), tokenizer, dir);
  return {std::move(model), std::move(tokenizer)};
}

}  // namespace gqa::cli
