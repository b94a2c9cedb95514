#include "convert/place.h"

#include <algorithm>

#include "core/fail.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// Absolute, without links; the last parts need not exist.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(fs::absolute(path), error);
  if (error) fail(ErrorKind::cannot_create, "{}: {}", path.string(), error.message());
  return without_slash(whole);
}

bool contains(const fs::path& outer, const fs::path& inner) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

}  // namespace

fs::path without_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

fs::path check_apart(const fs::path& source, const fs::path& out) {
  if (out.empty()) fail(ErrorKind::cannot_create, "the output needs a name");
  const fs::path from = resolved(source);
  const fs::path to = resolved(out);
  const char* problem = from == to           ? "is the source itself"
                        : contains(from, to) ? "is inside the source"
                        : contains(to, from) ? "contains the source"
                                             : nullptr;
  if (problem != nullptr) {
    fail(ErrorKind::cannot_create, "{}: the output {} ({})", out.string(), problem,
         source.string());
  }
  return without_slash(out);
}

void check_free_space(const fs::path& out, int64_t need_bytes) {
  const fs::path parent = fs::absolute(out).parent_path();
  std::error_code error;
  const fs::space_info space = fs::space(parent, error);
  if (error) fail(ErrorKind::cannot_create, "{}: {}", parent.string(), error.message());
  if (space.available < static_cast<uint64_t>(need_bytes)) {
    fail(ErrorKind::cannot_create, "{}: {} bytes needed, {} free on {}", out.string(), need_bytes,
         space.available, parent.string());
  }
}

}  // namespace gqa
