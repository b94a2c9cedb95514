#include "io/folder.h"

#include "core/fail.h"

namespace gqa {

void check_model_folder(const std::filesystem::path& dir) {
  namespace fs = std::filesystem;
  std::error_code error;
  const auto status = fs::status(dir, error);
  if (status.type() == fs::file_type::not_found) {
    fail(ErrorKind::no_input, "{}: no such folder", dir.string());
  }
  if (error) fail(ErrorKind::io, "{}: can't open: {}", dir.string(), error.message());
  if (!fs::is_directory(status)) {
    fail(ErrorKind::no_input, "{}: expected a model folder, got a file", dir.string());
  }
}

}  // namespace gqa
