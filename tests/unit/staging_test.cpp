#include "io/staging.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>

#include "io/rename.h"
#include "io/sha256.h"
#include "support/expect_error.h"
#include "support/files.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::get_file;
using test::put_file;

constexpr auto cannot_create = ErrorKind::cannot_create;

class Staging : public testing::Test {
 protected:
  std::set<std::string> names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir_.path())) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  void put_model(std::string_view name, std::string_view content) const {
    fs::create_directories((dir_ / name) / "sub");
    put_file(dir_ / name / "config.json", content);
  }
  /// Stages and commits a folder that holds `content`.
  static void replace(const fs::path& target, bool force, std::string_view content) {
    StagingDir staging(target, force);
    write_file(staging.path() / "config.json", content);
    staging.commit();
  }

  const test::TempDir dir_;
  const fs::path target_ = dir_ / "out";
};

using Names = std::set<std::string>;

TEST_F(Staging, CommitMakesTheFolder) {
  StagingDir staging(target_, false);
  EXPECT_FALSE(fs::exists(target_));
  EXPECT_EQ(staging.path().parent_path(), fs::canonical(dir_.path()));
  EXPECT_TRUE(staging.path().filename().string().starts_with(".out.partial-"));
  write_file(staging.path() / "a", "x");
  staging.commit();
  EXPECT_EQ(names(), Names{"out"});
  EXPECT_EQ(get_file(target_ / "a"), "x");
  expect_error(ErrorKind::usage, {"out", "twice"}, [&] { staging.commit(); });
}

TEST_F(Staging, WithoutCommitNothingIsLeft) {
  put_model("out", "old");
  for (const char* name : {"out", "other"}) {
    EXPECT_THROW(
        {
          const StagingDir staging(dir_ / name, true);
          fs::create_directory(staging.path() / "sub");
          write_file(staging.path() / "sub/a", "x");
          throw Error(ErrorKind::interrupted, "stopped");
        },
        Error);
  }
  EXPECT_EQ(names(), Names{"out"});
  EXPECT_EQ(get_file(target_ / "config.json"), "old");
}

TEST_F(Staging, ForceReplacesAModelFolder) {
  put_model("out", "old");
  expect_error(cannot_create, {"out", "exists", "force"}, [&] { replace(target_, false, "new"); });
  expect_error(cannot_create, {"out", "exists"}, [&] { StagingDir::check(target_, false); });
  EXPECT_EQ(get_file(target_ / "config.json"), "old");
  EXPECT_NO_THROW(StagingDir::check(target_, true));
  replace(target_, true, "new");
  EXPECT_EQ(names(), Names{"out"});
  EXPECT_EQ(get_file(target_ / "config.json"), "new");
  EXPECT_FALSE(fs::exists(target_ / "sub"));
}

TEST_F(Staging, ForceNeverReplacesWhatIsNoModelFolder) {
  put_file(dir_ / "file", "x");
  fs::create_directory(dir_ / "folder");
  put_file(dir_ / "folder/precious", "x");
  fs::create_symlink("nowhere", dir_ / "dangling");
  for (const char* name : {"file", "folder", "dangling"}) {
    for (const bool force : {false, true}) {
      expect_error(cannot_create, {name}, [&] { replace(dir_ / name, force, "new"); });
      expect_error(cannot_create, {name}, [&] { StagingDir::check(dir_ / name, force); });
    }
  }
  EXPECT_EQ(names(), (Names{"dangling", "file", "folder"}));
  EXPECT_EQ(get_file(dir_ / "folder/precious"), "x");
  expect_error(cannot_create, {"/"}, [] { StagingDir::check("/", true); });
  expect_error(cannot_create, {"not a path"}, [] { StagingDir::check("", true); });
}

TEST_F(Staging, TheTargetMayAppearMeanwhile) {
  for (const bool force : {false, true}) {
    fs::remove_all(target_);
    StagingDir staging(target_, force);
    fs::create_directory(target_);  // empty: a plain rename would replace it
    expect_error(cannot_create, {"out"}, [&] { staging.commit(); });
    EXPECT_TRUE(fs::is_empty(target_));
  }
  EXPECT_EQ(names(), Names{"out"});
  fs::remove(target_);
  StagingDir staging(target_, true);
  put_model("out", "old");
  write_file(staging.path() / "a", "x");
  staging.commit();
  EXPECT_EQ(names(), Names{"out"});
  EXPECT_EQ(get_file(target_ / "a"), "x");
}

TEST_F(Staging, TakesATrailingSlashARelativePathAndALink) {
  replace(target_.string() + "//", false, "1");
  EXPECT_EQ(get_file(target_ / "config.json"), "1");
  replace(target_ / "", true, "2");
  EXPECT_EQ(get_file(target_ / "config.json"), "2");
  const fs::path before = fs::current_path();
  fs::current_path(dir_.path());
  replace("out/", true, "3");
  replace("./out", true, "4");
  replace("second", false, "5");
  fs::current_path(before);
  EXPECT_EQ(get_file(target_ / "config.json"), "4");
  EXPECT_EQ(get_file(dir_ / "second/config.json"), "5");
  fs::create_symlink("out", dir_ / "link");
  replace(dir_ / "link", true, "6");
  EXPECT_TRUE(fs::is_symlink(dir_ / "link"));
  EXPECT_EQ(get_file(target_ / "config.json"), "6");
  EXPECT_EQ(names(), (Names{"link", "out", "second"}));
}

TEST_F(Staging, TwoMayBeFilledAtOnce) {
  StagingDir first(target_, true);
  StagingDir second(target_, true);
  EXPECT_NE(first.path(), second.path());
  for (StagingDir* staging : {&first, &second}) {
    write_file(staging->path() / "config.json", staging == &first ? "1" : "2");
    staging->commit();
  }
  EXPECT_EQ(names(), Names{"out"});
  EXPECT_EQ(get_file(target_ / "config.json"), "2");
}

TEST_F(Staging, ALongNameFits) {
  const std::string name(255, 'x');
  replace(dir_ / name, false, "1");
  EXPECT_EQ(names(), Names{name});
}

TEST_F(Staging, NeedsAParentThatCanBeWritten) {
  put_file(dir_ / "file", "x");
  ::chmod((dir_ / "file").c_str(), 0777);
  for (const fs::path& target : {dir_ / "missing/out", dir_ / "file/out"}) {
    expect_error(cannot_create, {"out"}, [&] { StagingDir::check(target, false); });
    expect_error(cannot_create, {"out"}, [&] { StagingDir staging(target, false); });
  }
  expect_error(cannot_create, {"/proc/out"}, [&] { StagingDir staging("/proc/out", false); });
  if (::geteuid() == 0) return;  // may write anywhere
  fs::create_directory(dir_ / "locked");
  ::chmod((dir_ / "locked").c_str(), 0555);
  expect_error(cannot_create, {"locked/out", "Permission denied"},
               [&] { StagingDir::check(dir_ / "locked/out", false); });
  expect_error(cannot_create, {"locked/out", "Permission denied"},
               [&] { StagingDir staging(dir_ / "locked/out", false); });
}

TEST_F(Staging, AKilledProcessLeavesTheOldFolder) {
  put_model("out", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    StagingDir staging(target_, true);
    write_file(staging.path() / "config.json", "new");
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(get_file(target_ / "config.json"), "old");
  replace(target_, true, "newer");  // the remains are in nobody's way
  EXPECT_EQ(get_file(target_ / "config.json"), "newer");
  EXPECT_EQ(names(), Names{"out"});
}

TEST_F(Staging, RenamesToAFreeNameOnly) {
  put_model("a", "1");
  fs::create_directory(dir_ / "b");  // a plain rename would replace it, as it is empty
  expect_error(cannot_create, {"/b", "exists"}, [&] { rename_to_free(dir_ / "a", dir_ / "b"); });
  EXPECT_EQ(names(), (Names{"a", "b"}));
  rename_to_free(dir_ / "a", dir_ / "c");
  EXPECT_EQ(names(), (Names{"b", "c"}));
}

TEST_F(Staging, ExchangesFoldersWhereTheFileSystemCannot) {
  put_model("a", "1");
  put_model("b", "2");
  exchange_folders_stepwise(dir_ / "a", dir_ / "b");
  EXPECT_EQ(get_file(dir_ / "a/config.json"), "2");
  EXPECT_EQ(get_file(dir_ / "b/config.json"), "1");
  EXPECT_EQ(names(), (Names{"a", "b"}));
  // The second step fails: the first is taken back.
  expect_error(cannot_create, {"none", "/b"},
               [&] { exchange_folders_stepwise(dir_ / "none", dir_ / "b"); });
  EXPECT_EQ(get_file(dir_ / "b/config.json"), "1");
  EXPECT_EQ(names(), (Names{"a", "b"}));
}

TEST_F(Staging, WritesAndCopiesFiles) {
  const std::string content("a\0b\n", 4);
  write_file(dir_ / "a", "longer than the content that follows");
  write_file(dir_ / "a", content);
  EXPECT_EQ(get_file(dir_ / "a"), content);
  copy_file_synced(dir_ / "a", dir_ / "b");
  EXPECT_EQ(get_file(dir_ / "b"), content);
  write_file(dir_ / "empty", "");
  copy_file_synced(dir_ / "empty", dir_ / "b");
  EXPECT_EQ(get_file(dir_ / "b"), "");
  expect_error(ErrorKind::no_input, {"none"}, [&] { copy_file_synced(dir_ / "none", dir_ / "c"); });
  expect_error(ErrorKind::io, {"none/c"}, [&] { copy_file_synced(dir_ / "a", dir_ / "none/c"); });
  expect_error(ErrorKind::io, {"none/c"}, [&] { write_file(dir_ / "none/c", "x"); });
  EXPECT_FALSE(fs::exists(dir_ / "c"));
}

TEST_F(Staging, Sha256IsThatOfTheStandard) {
  write_file(dir_ / "a", "abc");  // FIPS 180-2, B.1
  EXPECT_EQ(sha256_of_file(dir_ / "a"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  write_file(dir_ / "a", "");
  EXPECT_EQ(sha256_of_file(dir_ / "a"),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  expect_error(ErrorKind::no_input, {"none"}, [&] { sha256_of_file(dir_ / "none"); });
}

}  // namespace
}  // namespace gqa
