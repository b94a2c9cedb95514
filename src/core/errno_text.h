// What the operating system said.
#pragma once

#include <string>

namespace gqa {

/// The message of an errno value; thread-safe.
std::string errno_text(int code);

}  // namespace gqa
