#include "io/output_place.h"

#include <unistd.h>

#include <cerrno>

#include "core/errno_text.h"
#include "core/fail.h"

namespace gqa {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

fs::path resolve_target(const fs::path& target) {
  std::error_code error;
  fs::path path = fs::absolute(target, error);
  if (target.empty() || error) {
    fail(ErrorKind::cannot_create, "`{}`: not a path that can be written to", target.string());
  }
  while (!path.has_filename() && path.has_relative_path()) path = path.parent_path();
  if (is_there(path)) {
    fs::path real = fs::canonical(path, error);
    if (!error) return real;
    fail(ErrorKind::cannot_create, "{}: can't follow the link: {}", path.string(), error.message());
  }
  const fs::path parent = fs::canonical(path.parent_path(), error);
  if (error) {
    fail(ErrorKind::cannot_create, "{}: can't create: its parent folder {}: {}", path.string(),
         path.parent_path().string(), error.message());
  }
  return parent / path.filename();
}

void check_parent(const fs::path& target) {
  const fs::path parent = target.parent_path();
  if (std::error_code ignored; !fs::is_directory(parent, ignored)) {
    fail(ErrorKind::cannot_create, "{}: its parent {} is not a folder", target.string(),
         parent.string());
  }
  if (::access(parent.c_str(), W_OK | X_OK) != 0) {
    fail(ErrorKind::cannot_create, "{}: can't write to its parent folder {}: {}", target.string(),
         parent.string(), errno_text(errno));
  }
}

std::string partial_name(const fs::path& target) {
  constexpr size_t name_bytes = 200;  // of the 255 that a name may have
  return fmt::format(".{}.partial", target.filename().string().substr(0, name_bytes));
}

}  // namespace gqa
