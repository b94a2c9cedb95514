// What counts as text.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace gqa {
#pragma GCC visibility push(default)

/// The offset of the first byte that is not valid UTF-8 (RFC 3629: no surrogates, no overlong
/// forms, nothing above U+10FFFF); none where the text is valid. Thread-safe.
std::optional<size_t> find_invalid_utf8(std::string_view text);

#pragma GCC visibility pop
}  // namespace gqa
