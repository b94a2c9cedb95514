// Throwing an Error with a formatted message.
#pragma once

#include <fmt/core.h>
#include <fmt/format.h>

#include <utility>

#include "gqa/error.h"

namespace gqa {

template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// fail() of kind usage unless `ok`: for what a caller promised.
template <typename... Args>
void require(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) throw Error(ErrorKind::usage, fmt::format(format, std::forward<Args>(args)...));
}

/// "[2, 3, 4]"
template <typename Range>
std::string shape_text(const Range& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace gqa
