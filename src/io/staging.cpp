#include "io/staging.h"

#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "core/errno_text.h"
#include "core/fail.h"
#include "core/mapped_file.h"
#include "io/folder.h"
#include "io/output_file.h"
#include "io/output_place.h"
#include "io/rename.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

void check_resolved(const fs::path& target, bool force) {
  if (is_there(target)) {
    std::error_code ignored;
    if (!fs::is_directory(target, ignored) || !fs::exists(target / "config.json", ignored)) {
      fail(ErrorKind::cannot_create,
           "{}: exists and is not a model folder (it has no config.json); it is not replaced",
           target.string());
    }
    if (!force) {
      fail(ErrorKind::cannot_create, "{}: exists; replacing it needs force (--force)",
           target.string());
    }
  }
  check_parent(target);
}

[[noreturn]] void fail_beside(const fs::path& target, int code) {
  fail(ErrorKind::cannot_create, "{}: can't create a folder beside it: {}", target.string(),
       errno_text(code));
}

}  // namespace

void write_file(const fs::path& file, std::string_view content) {
  OutputFile out(file);
  out.write(content);
  out.close();
}

void copy_file_synced(const fs::path& from, const fs::path& to) {
  const MappedFile mapped(from);
  OutputFile out(to);
  out.write(mapped.bytes());
  out.close();
}

void StagingDir::check(const fs::path& target, bool force) {
  check_resolved(resolve_target(target), force);
}

fs::path StagingDir::kept_path(const fs::path& target) {
  const fs::path resolved = resolve_target(target);
  return resolved.parent_path() / partial_name(resolved);
}

StagingDir::StagingDir(const fs::path& target, bool force, Unfinished unfinished)
    : target_(resolve_target(target)), force_(force), unfinished_(unfinished) {
  check_resolved(target_, force_);
  const std::string name = partial_name(target_);
  remove_abandoned(target_.parent_path(), name);
  if (unfinished_ == Unfinished::kept) {
    take_kept_folder(name);
  } else {
    make_own_folder(name);
  }
}

void StagingDir::make_own_folder(const std::string& name) {
  for (int attempt = 0;; ++attempt) {
    const fs::path path = target_.parent_path() / name_in_use(name, attempt);
    if (::mkdir(path.c_str(), 0777) == 0) {
      path_ = path;
      in_use_ = std::make_unique<InUse>(path_);
      return;
    }
    if (errno != EEXIST) fail_beside(target_, errno);
  }
}

void StagingDir::take_kept_folder(const std::string& name) {
  const fs::path path = target_.parent_path() / name;
  lock_ = std::make_unique<LockFile>(path.string() + ".lock");
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) fail_beside(target_, errno);
  std::error_code ignored;
  if (!fs::is_directory(fs::symlink_status(path, ignored))) fail_beside(target_, ENOTDIR);
  path_ = path;
}

StagingDir::~StagingDir() {
  if (path_.empty()) return;
  std::error_code ignored;
  if (unfinished_ == Unfinished::kept) {
    fs::remove(path_, ignored);  // if there is nothing in it
  } else {
    fs::remove_all(path_, ignored);
  }
}

void StagingDir::empty() const {
  const std::error_code error = remove_contents(path_, [](const fs::path&) { return false; });
  if (error) {
    fail(ErrorKind::cannot_create, "{}: can't be emptied: {}", path_.string(), error.message());
  }
}

void StagingDir::commit() {
  require(!path_.empty(), "{}: committed twice", target_.string());
  sync_folder(path_);
  if (!is_there(target_)) {
    rename_to_free(path_, target_);
    path_.clear();
    sync_folder(target_.parent_path());
    return;
  }
  check_resolved(target_, force_);  // it may have come meanwhile
  exchange_folders(path_, target_);
  const fs::path old = std::exchange(path_, {});
  sync_folder(target_.parent_path());
  std::error_code error;
  fs::remove_all(old, error);
  if (error) {
    fail(ErrorKind::io,
         "{}: is in place, but the folder that it replaces, now {}, can't be removed: {}",
         target_.string(), old.string(), error.message());
  }
}

}  // namespace gqa
