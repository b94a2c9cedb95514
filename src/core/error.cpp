#include "core/errno_text.h"

#include <cstring>

namespace gqa {

std::string errno_text(int code) {
  char buffer[256];
  // The GNU strerror_r may return a static string instead of filling the buffer.
  return strerror_r(code, buffer, sizeof buffer);
}

}  // namespace gqa
