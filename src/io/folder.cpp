#include "io/folder.h"

#include <vector>

#include "core/fail.h"

namespace gqa {

namespace fs = std::filesystem;

void check_model_folder(const fs::path& dir) {
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

std::error_code remove_contents(const fs::path& dir,
                                const std::function<bool(const fs::path&)>& keep) {
  std::error_code error;
  std::vector<fs::path> others;  // what goes while a folder is walked through may confuse the walk
  for (fs::directory_iterator it(dir, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (!keep(it->path())) others.push_back(it->path());
  }
  for (size_t i = 0; i < others.size() && !error; ++i) fs::remove_all(others[i], error);
  return error;
}

}  // namespace gqa
