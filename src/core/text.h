// UTF-8.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "gqa/text.h"

namespace gqa {

/// Length in bytes of the valid UTF-8 sequence that starts at `text[at]`, 1 to 4; 0 where there is
/// none (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF).
int utf8_length(std::string_view text, size_t at);

/// The code point of the valid sequence at `text[at]`.
char32_t utf8_decode(std::string_view text, size_t at);

/// Appends a code point.
void utf8_append(std::string& text, char32_t code_point);

/// A file's whole content. Throws Error: no_input, io, and bad_data where it is not UTF-8 (naming
/// the offset).
std::string read_text(const std::filesystem::path& path);

}  // namespace gqa
