// Conversions that stop and go on: whatever is left behind, the result is that of a run without a
// stop, or a refusal.
#include <gtest/gtest.h>

#include "gqa/convert.h"
#include "io/lock_file.h"
#include "io/write_journal.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::folder_content;
using test::get_file;
using test::put_file;
using test::write_tiny;
using Content = std::map<std::string, std::string>;

constexpr const char* part_name = ".out.partial";

class Resume : public testing::Test {
 protected:
  Resume() {
    write_tiny(dir_ / "in", {.attention_bias = true});
    write_tiny(dir_ / "other", {.attention_bias = true, .seed = 2});
    put_file(dir_ / "in" / "LICENSE", "Free.");
    options_.kv_heads = 2;
    options_.merge = "random";  // K and V of a layer depend on each other
    options_.output.max_shard_bytes = 12000;
    options_.output.threads = 1;
    fs::create_directory(dir_ / "whole");
    convert(dir_ / "in", dir_ / "whole/out", options_);
    want_ = folder_content(dir_ / "whole/out");
    options_.output.resume = true;
  }

  /// Converts into `parent`/out; false where it was stopped at call `stop` of its progress.
  bool run(const fs::path& parent, int64_t stop) {
    calls_ = 0;
    first_done_ = -1;
    const Progress progress = [&](std::string_view what, int64_t done, int64_t) {
      if (what == "convert" && first_done_ < 0) first_done_ = done;
      if (calls_++ == stop) throw Error(ErrorKind::interrupted, "stopped");
    };
    try {
      convert(dir_ / "in", parent / "out", options_, progress);
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::interrupted) << error.what();
      return false;
    }
  }

  /// A new folder with what is left of a run that stopped when all tensors were written.
  fs::path stopped_late() {
    const fs::path parent = dir_ / fmt::format("late{}", count_++);
    fs::create_directory(parent);
    if (!fs::exists(dir_ / "late")) {
      fs::create_directory(dir_ / "late");
      run(dir_ / "late", -1);
      const int64_t all = calls_;
      fs::remove_all(dir_ / "late/out");
      EXPECT_FALSE(run(dir_ / "late", all - 1));
    }
    fs::copy(dir_ / "late", parent, fs::copy_options::recursive);
    return parent;
  }

  /// All files that such a run leaves; names are seen from `late`.
  Content left_late() {
    const fs::path parent = stopped_late();
    Content all;
    for (const auto& [name, content] : folder_content(parent / part_name)) {
      all[fs::path(part_name) / name] = content;
    }
    const fs::path journal = WriteJournal::file_of(parent / part_name);
    all[journal.filename()] = get_file(journal);
    return all;
  }

  /// Goes on in `parent`, and has then what was wanted and nothing else.
  void expect_whole(const fs::path& parent) {
    ASSERT_TRUE(run(parent, -1));
    ASSERT_EQ(folder_content(parent / "out"), want_);
    ASSERT_EQ(folder_content(parent), (Content{{"out", "(no file)"}}));
  }

  const test::TempDir dir_;
  ConvertOptions options_;
  Content want_;
  int64_t calls_ = 0;        ///< of the last run's progress
  int64_t first_done_ = -1;  ///< bytes that it had when it began to convert
  int count_ = 0;
};

TEST_F(Resume, StopsAtEveryCallOfProgressAndGoesOn) {
  for (const int threads : {1, 4}) {
    options_.output.threads = threads;
    bool done = false;
    for (int64_t stop = 0; !done; stop += threads) {
      const fs::path parent = dir_ / fmt::format("{}-{}", threads, stop);
      fs::create_directory(parent);
      done = run(parent, stop);
      if (done) break;
      EXPECT_FALSE(fs::exists(parent / "out"));
      expect_whole(parent);
      ASSERT_LT(stop, 1000);
    }
  }
}

TEST_F(Resume, StopsAgainAndAgain) {
  fs::create_directory(dir_ / "slow");
  int64_t before = -1;
  for (int64_t stop = 6; !run(dir_ / "slow", stop); ++stop) {
    EXPECT_GE(first_done_, before) << "it does not go on from what is there";
    before = first_done_;
    ASSERT_LT(stop, 100);
  }
  EXPECT_GT(before, 0);
  EXPECT_EQ(folder_content(dir_ / "slow/out"), want_);
}

TEST_F(Resume, GoesOnFromWhatIsComplete) {
  const fs::path parent = stopped_late();
  expect_whole(parent);
  EXPECT_EQ(first_done_, plan_convert(dir_ / "in", options_).plan().output_bytes);
}

TEST_F(Resume, TornFilesAreWrittenAgain) {
  for (const auto& [name, content] : left_late()) {
    for (size_t size = 0; size < content.size(); size += 1201) {
      SCOPED_TRACE(fmt::format("{} cut to {}", name, size));
      const fs::path parent = stopped_late();
      fs::resize_file(parent / name, size);
      expect_whole(parent);
      if (HasFatalFailure()) return;
      fs::remove_all(parent);
    }
  }
}

TEST_F(Resume, ChangedBytesAreNotTrusted) {
  for (const auto& [name, content] : left_late()) {
    for (size_t at = 3; at < content.size(); at += 2003) {
      SCOPED_TRACE(fmt::format("{} changed at {}", name, at));
      const fs::path parent = stopped_late();
      std::string changed = content;
      changed[at] = static_cast<char>(changed[at] ^ 1);
      put_file(parent / name, changed);
      // What the journal says that is being made may then be something else.
      const auto before = WriteJournal::subject(dir_ / "late" / part_name);
      options_.output.force = WriteJournal::subject(parent / part_name) != before;
      expect_whole(parent);
      options_.output.force = false;
      if (HasFatalFailure()) return;
      fs::remove_all(parent);
    }
  }
}

TEST_F(Resume, RefusesTheRemainsOfAnotherConversion) {
  const fs::path parent = stopped_late();
  const auto before = folder_content(parent / part_name);
  const auto refused = [&](std::string_view what, const char* source, const ConvertOptions& o) {
    expect_error(ErrorKind::cannot_create, {part_name, what, "--force"},
                 [&] { convert(dir_ / source, parent / "out", o); });
    EXPECT_EQ(folder_content(parent / part_name), before);
  };
  ConvertOptions other = options_;
  other.seed = 1;
  refused("options: seed", "in", other);
  other = options_;
  other.output.dtype = DType::bf16;
  refused("options: dtype", "in", other);
  refused("source", "other", options_);
  other.output.force = true;
  convert(dir_ / "in", parent / "out", other);
  EXPECT_EQ(folder_content(parent), (Content{{"out", "(no file)"}}));
  other.output.resume = false;
  convert(dir_ / "in", dir_ / "whole/out", other);
  EXPECT_EQ(folder_content(parent / "out"), folder_content(dir_ / "whole/out"));
}

TEST_F(Resume, KeepsAllUntilItIsInPlace) {
  fs::create_directory(dir_ / "taken");
  const fs::path out = dir_ / "taken/out";
  const Progress take_the_name = [&](std::string_view what, int64_t done, int64_t total) {
    if (what == "convert" && done == total) fs::create_directory(out);
  };
  expect_error(ErrorKind::cannot_create, {"taken/out"},
               [&] { convert(dir_ / "in", out, options_, take_the_name); });
  fs::remove(out);
  expect_whole(dir_ / "taken");
  EXPECT_EQ(first_done_, plan_convert(dir_ / "in", options_).plan().output_bytes);
}

TEST_F(Resume, AFolderThatIsDeletedIsForgotten) {
  const fs::path parent = stopped_late();
  fs::remove_all(parent / part_name);
  options_.seed = 1;
  options_.output.resume = false;
  convert(dir_ / "in", dir_ / "whole/other", options_);
  want_ = folder_content(dir_ / "whole/other");
  options_.output.resume = true;
  expect_whole(parent);
}

TEST_F(Resume, WhatIsNotItsOwnGoes) {
  const fs::path parent = stopped_late();
  put_file(parent / part_name / "tokenizer.json", "{}");
  fs::create_directories(parent / part_name / "original/deep");
  expect_whole(parent);
  EXPECT_EQ(first_done_, plan_convert(dir_ / "in", options_).plan().output_bytes);
}

TEST_F(Resume, OneProcessAtATime) {
  const fs::path parent = stopped_late();
  {
    const LockFile lock(parent / (std::string(part_name) + ".lock"));
    expect_error(ErrorKind::cannot_create, {"another process"},
                 [&] { convert(dir_ / "in", parent / "out", options_); });
  }
  expect_whole(parent);
}

TEST_F(Resume, WhatIsNotResumableLeavesTheKeptAlone) {
  const fs::path parent = stopped_late();
  const auto before = folder_content(parent / part_name);
  options_.output.resume = false;
  convert(dir_ / "in", parent / "out", options_);
  EXPECT_EQ(folder_content(parent / part_name), before);
}

}  // namespace
}  // namespace gqa
