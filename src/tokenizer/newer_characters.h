// Characters that the regular-expression library may be too old to know.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace gqa {

/// What \p{L} and the like match depends on the version of Unicode that the library was built with,
/// and thereby a tokenizer's ids would. So characters of Unicode 15 and 16 are searched for in a
/// copy of the text where an older character of the same general category and length stands for
/// each. None where the text has no such character.
std::optional<std::string> with_stand_ins(std::string_view text);

}  // namespace gqa
