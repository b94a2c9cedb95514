// Refined conversions that stop and go on: the layers that are written are taken as they are.
#include <gtest/gtest.h>

#include <map>

#include "gqa/convert.h"
#include "gqa/error.h"
#include "io/write_journal.h"
#include "support/refined_case.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::folder_content;
using test::put_file;

class ResumeRefined : public test::RefinedCase {
 protected:
  ResumeRefined() {
    options_.calibration->refined = [this](const LayerRefinement& layer) {
      told_.push_back(layer);
    };
    options_.calibration->compared = [](ModelRefinement& model) { model.kept = true; };
  }

  /// Converts; false where it was stopped at call `stop` of its progress.
  bool run(int64_t stop) {
    told_.clear();
    calls_ = 0;
    const Progress progress = [&](std::string_view, int64_t, int64_t) {
      if (calls_++ == stop) throw Error(ErrorKind::interrupted, "stopped");
    };
    try {
      convert(dir_ / "in", dir_ / "out", options_, progress);
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::interrupted) << error.what();
      return false;
    }
  }

  /// Layers whose attention is written, to go by the journal.
  int64_t written_layers() const {
    const fs::path part = dir_ / ".out.partial";
    const auto subject = WriteJournal::subject(part);
    if (!subject) return 0;
    const std::string text = test::get_file(WriteJournal::file_of(part));
    int64_t n = 0;
    while (text.find(fmt::format("layers.{}.self_attn.o_proj.weight", n)) != text.npos) ++n;
    return n;
  }

  void expect_told(const std::vector<LayerRefinement>& want, int64_t taken_over) const {
    ASSERT_EQ(told_.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_EQ(told_[i].layer, want[i].layer);
      EXPECT_EQ(told_[i].before, want[i].before);
      EXPECT_EQ(told_[i].after, want[i].after);
      EXPECT_EQ(told_[i].steps, want[i].steps);
      EXPECT_EQ(told_[i].kept, want[i].kept);
      EXPECT_EQ(told_[i].diverged, want[i].diverged);
      EXPECT_EQ(told_[i].taken_over, want[i].layer < taken_over);
    }
  }

  /// Stops at every moment, and goes on.
  void expect_whole_from_anywhere() {
    ASSERT_TRUE(run(-1));
    const auto want = folder_content(dir_ / "out");
    const std::vector<LayerRefinement> told = told_;
    ASSERT_EQ(std::ssize(told), layers);
    options_.output.resume = true;
    std::map<int64_t, int> seen;  // stops by layers that were written
    for (int64_t stop = 0;; ++stop) {
      SCOPED_TRACE(stop);
      fs::remove_all(dir_ / "out");
      if (run(stop)) break;
      const int64_t written = written_layers();
      ++seen[written];
      ASSERT_TRUE(run(-1));
      EXPECT_EQ(folder_content(dir_ / "out"), want);
      expect_told(told, written);
    }
    for (int64_t l = 0; l <= layers; ++l) EXPECT_GT(seen[l], 0) << l;
  }

  std::vector<LayerRefinement> told_;
  int64_t calls_ = 0;
};

TEST_F(ResumeRefined, FromAnywhere) { expect_whole_from_anywhere(); }

TEST_F(ResumeRefined, InShardsAndAnotherType) {
  options_.output.max_shard_bytes = 3000;
  options_.output.dtype = DType::f16;
  expect_whole_from_anywhere();
}

TEST_F(ResumeRefined, WithFewerNumbersPerHead) {
  options_.kv_rank = 4;
  expect_whole_from_anywhere();
}

TEST_F(ResumeRefined, TellsWhereRefiningIs) {
  std::vector<std::string> told;
  std::vector<int64_t> dones;
  convert(dir_ / "in", dir_ / "out", options_,
          [&](std::string_view what, int64_t done, int64_t total) {
            if (!what.starts_with("refine")) return;
            // A layer that begins again with smaller steps says no more.
            if (!told.empty() && what == told.back()) return;
            told.emplace_back(what);
            dones.push_back(done);
            EXPECT_EQ(total, layers * 3);
          });
  ASSERT_EQ(told.size(), layers * 4u);
  EXPECT_EQ(told[4], "refine: layer 1 (2 of 3)");
  EXPECT_EQ(told[7], "refine: layer 1 (2 of 3), step 3 of 3");
  EXPECT_EQ(dones, (std::vector<int64_t>{0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8}));
}

TEST_F(ResumeRefined, AnEntryWithoutItsNoteIsNotTold) {
  options_.output.resume = true;
  ASSERT_TRUE(run(-1));
  const auto want = folder_content(dir_ / "out");
  const int64_t all = calls_;
  fs::remove_all(dir_ / "out");
  ASSERT_FALSE(run(all - 1));
  const fs::path journal = WriteJournal::file_of(dir_ / ".out.partial");
  std::string text = test::get_file(journal);
  for (size_t at; (at = text.find(",\"note\"")) != text.npos;) {
    text.erase(at, text.find('}', at) + 1 - at);
  }
  put_file(journal, text);
  ASSERT_TRUE(run(-1));
  EXPECT_TRUE(told_.empty());
  EXPECT_EQ(folder_content(dir_ / "out"), want);
}

}  // namespace
}  // namespace gqa
