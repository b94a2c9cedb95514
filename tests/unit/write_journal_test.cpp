#include "io/write_journal.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "io/abandoned.h"
#include "io/lock_file.h"
#include "io/safetensors_writer.h"
#include "support/expect_error.h"
#include "support/files.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::get_file;
using test::put_file;

const Json subject = {{"verb", "convert"}, {"groups", {{0, 1}, {2, 3}}}};
const std::vector<JournalEntry> entries = {{"a", "x.safetensors", 7, "12"},
                                           {"b\n\"", "x.safetensors", 9, "34"},
                                           {"c", "y.safetensors", 1, "56", {{"steps", 3}}}};

/// As many entries as `text` has whole.
size_t entries_of(const fs::path& dir, std::string_view text) {
  put_file(WriteJournal::file_of(dir), text);
  const WriteJournal journal(dir, subject);
  const auto& found = journal.entries();
  EXPECT_TRUE(std::equal(found.begin(), found.end(), entries.begin()));
  return found.size();
}

TEST(WriteJournal, RemembersWholeLines) {
  const test::TempDir root;
  const fs::path dir = root / "part";
  EXPECT_EQ(WriteJournal::subject(dir), std::nullopt);
  {
    WriteJournal journal(dir, subject);
    for (const auto& entry : entries) journal.add(entry);
  }
  EXPECT_EQ(WriteJournal::subject(dir), subject);
  const std::string text = get_file(WriteJournal::file_of(dir));
  size_t seen = 0;
  for (size_t size = 0; size <= text.size(); ++size) {
    const size_t found = entries_of(dir, text.substr(0, size));
    const auto lines = std::count(text.begin(), text.begin() + size, '\n');
    EXPECT_EQ(found, lines == 0 ? 0 : lines - 1) << size;
    seen = std::max(seen, found);
  }
  EXPECT_EQ(seen, entries.size());
  EXPECT_EQ(entries_of(dir, text + "{}\n" + text), entries.size());
  put_file(WriteJournal::file_of(dir), "\xff\n");
  EXPECT_EQ(WriteJournal::subject(dir), std::nullopt);
  WriteJournal::discard(dir);
  EXPECT_TRUE(fs::is_empty(root.path()));
}

TEST(WriteJournal, ForgetsAndGoesOn) {
  const test::TempDir root;
  const fs::path dir = root / "part";
  WriteJournal journal(dir, subject);
  for (const auto& entry : entries) journal.add(entry);
  journal.keep(1);
  journal.add(entries[1]);
  EXPECT_EQ(WriteJournal(dir, subject).entries(),
            (std::vector<JournalEntry>{entries[0], entries[1]}));
}

TEST(SafetensorsWriter, ReadsBackWhatIsComplete) {
  const test::TempDir dir;
  const std::string data = "0123456789";
  const auto bytes = std::as_bytes(std::span(data));
  SafetensorsWriter writer(dir.path(),
                           {{"a", "U8", {4}, 4}, {"b", "U8", {3}, 3}, {"c", "U8", {3}, 3}}, 7);
  writer.write(bytes.first(4));
  writer.write(bytes.subspan(4, 2));
  EXPECT_EQ(writer.tensors_done(), 1u);
  expect_error(ErrorKind::usage, {"tensor 1", "not written"}, [&] { writer.written(1); });
  writer.write(bytes.subspan(6, 1));
  writer.write(bytes.subspan(7));
  const std::vector<std::string> all = {"0123", "456", "789"};
  for (size_t i = 0; i < all.size(); ++i) {
    const auto found = writer.written(i).read();
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(found.data()), found.size()), all[i]);
  }
}

TEST(LockFile, IsHeldByOneAndGoesWithIt) {
  const test::TempDir dir;
  const fs::path path = dir / "lock";
  put_file(path, "left by a killed process");
  {
    const LockFile lock(path);
    expect_error(ErrorKind::cannot_create, {"lock", "another process"},
                 [&] { LockFile again(path); });
  }
  EXPECT_FALSE(fs::exists(path));
  const LockFile lock(path);
  expect_error(ErrorKind::cannot_create, {"none/lock"}, [&] { LockFile no(dir / "none/lock"); });
}

TEST(Abandoned, FoldersOfDeadProcessesGo) {
  const test::TempDir dir;
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  const auto put = [&](const std::string& name) {
    fs::create_directories((dir / name) / "sub");
    return dir / name;
  };
  const std::vector<fs::path> stay = {put(name_in_use(".out", 0)),
                                      put(fmt::format(".out-{}", dead)),
                                      put(fmt::format(".out-{}-0x", dead)),
                                      put(fmt::format(".output-{}-0", dead)),
                                      put(".out-0-0"),
                                      put(".out--5-0")};
  const std::vector<fs::path> go = {put(fmt::format(".out-{}-0", dead)),
                                    put(fmt::format(".out-{}-12", dead))};
  const fs::path used = put(fmt::format(".out-{}-1", dead));
  {
    const InUse elsewhere(used);  // by a process whose number means nothing here
    remove_abandoned(dir.path(), ".out");
    EXPECT_TRUE(fs::exists(used));
  }
  for (const fs::path& path : stay) EXPECT_TRUE(fs::exists(path)) << path;
  for (const fs::path& path : go) EXPECT_FALSE(fs::exists(path)) << path;
  remove_abandoned(dir.path(), ".out");
  EXPECT_FALSE(fs::exists(used));
}

}  // namespace
}  // namespace gqa
