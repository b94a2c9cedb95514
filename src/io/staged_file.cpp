#include "io/staged_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <utility>

#include "core/errno_text.h"
#include "core/fail.h"
#include "io/output_place.h"
#include "io/rename.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

bool begins_with(const fs::path& file, const std::string& magic) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return false;
  std::string start(magic.size(), '\0');
  std::ifstream in(file, std::ios::binary);
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  return in && start == magic;
}

void check_resolved(const fs::path& target, bool force, const std::string& magic) {
  if (is_there(target)) {
    if (!begins_with(target, magic)) {
      fail(ErrorKind::cannot_create, "{}: exists and is not a {} file; it is not replaced",
           target.string(), magic);
    }
    if (!force) {
      fail(ErrorKind::cannot_create, "{}: exists; replacing it needs force (--force)",
           target.string());
    }
  }
  check_parent(target);
}

fs::path make_file_beside(const fs::path& target) {
  const std::string name = partial_name(target);
  remove_abandoned(target.parent_path(), name);
  for (int attempt = 0;; ++attempt) {
    fs::path path = target.parent_path() / name_in_use(name, attempt);
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) {
      ::close(fd);
      return path;
    }
    if (errno != EEXIST) {
      fail(ErrorKind::cannot_create, "{}: can't create a file beside it: {}", target.string(),
           errno_text(errno));
    }
  }
}

}  // namespace

void StagedFile::check(const fs::path& target, bool force, const std::string& magic) {
  check_resolved(resolve_target(target), force, magic);
}

StagedFile::StagedFile(const fs::path& target, bool force, std::string magic)
    : target_(resolve_target(target)), force_(force), magic_(std::move(magic)) {
  check_resolved(target_, force_, magic_);
  path_ = make_file_beside(target_);
  in_use_ = std::make_unique<InUse>(path_);
}

StagedFile::~StagedFile() {
  if (path_.empty()) return;
  std::error_code ignored;
  fs::remove(path_, ignored);
}

void StagedFile::commit() {
  require(!path_.empty(), "{}: committed twice", target_.string());
  if (is_there(target_)) {
    check_resolved(target_, force_, magic_);  // it may have come meanwhile
    replace_file(path_, target_);
  } else {
    rename_to_free(path_, target_);
  }
  path_.clear();
  sync_folder(target_.parent_path());
}

}  // namespace gqa
