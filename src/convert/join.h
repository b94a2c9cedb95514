// Lists in messages.
#pragma once

#include <fmt/core.h>

#include <string>

namespace gqa {

/// "a, b, c"
template <typename Range>
std::string joined(const Range& items) {
  std::string text;  // fmt::join() makes GCC 12 warn
  for (const auto& item : items) text += fmt::format("{}{}", text.empty() ? "" : ", ", item);
  return text;
}

}  // namespace gqa
