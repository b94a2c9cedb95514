// The byte-level alphabet of GPT-2: a printable character for each byte (Radford et al. 2019).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace gqa {

/// The characters that stand for the bytes of a text.
std::string byte_level_symbols(std::string_view text);

/// The bytes that the characters of a token stand for; none where a character stands for no byte.
std::optional<std::string> byte_level_bytes(std::string_view token);

}  // namespace gqa
