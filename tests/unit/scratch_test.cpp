#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "core/scratch_file.h"
#include "gqa/context.h"
#include "gqa/error.h"
#include "regroup/layer_study.h"
#include "regroup/refit_outputs.h"
#include "support/block_case.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

using test::BlockCase;
using test::TempDir;

/// The line of /proc/self/maps about this address; empty where nothing is mapped.
std::string mapping_of(const void* data) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const auto begin = std::stoull(line, nullptr, 16);
    const auto end = std::stoull(line.substr(line.find('-') + 1), nullptr, 16);
    const auto at = reinterpret_cast<uintptr_t>(data);
    if (begin <= at && at < end) return line;
  }
  return {};
}

TEST(ScratchFile, IsMappedFromAFileWithoutAName) {
  const TempDir dir;
  ScratchFile file(dir.path(), 1'000'001);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  auto* bytes = static_cast<char*>(file.data());
  EXPECT_TRUE(std::all_of(bytes, bytes + 1'000'001, [](char c) { return c == 0; }));
  bytes[1'000'000] = 7;
  const std::string mapping = mapping_of(bytes);
  EXPECT_NE(mapping.find(dir.path().string()), std::string::npos) << mapping;
  EXPECT_NE(mapping.find("rw-s"), std::string::npos) << mapping;
  ScratchFile moved = std::move(file);
  EXPECT_EQ(static_cast<char*>(moved.data())[1'000'000], 7);
  moved = ScratchFile(dir.path(), 0);
  EXPECT_EQ(moved.data(), nullptr);
  EXPECT_EQ(mapping_of(bytes).find(dir.path().string()), std::string::npos);
}

void expect_refused(const std::filesystem::path& folder, int64_t bytes, ErrorKind kind) {
  try {
    const ScratchFile file(folder, bytes);
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_NE(std::string(error.what()).find(folder.string()), std::string::npos) << error.what();
  }
}

TEST(ScratchFile, NamesTheFolderThatIsMissingOrTooFull) {
  const TempDir dir;
  expect_refused(dir / "none", 10, ErrorKind::cannot_create);
  expect_refused(dir.path(), int64_t{1} << 60, ErrorKind::io);
}

TEST(ScratchMatrix, IsInMemoryUpToItsBound) {
  const TempDir dir;
  const ScratchPlace place{dir.path(), 4 * 6};
  const auto on_disk = [&](ScratchRows& rows) {
    return mapping_of(rows.map().data()).find(dir.path().string()) != std::string::npos;
  };
  ScratchRows small(place, 2, 3), large(place, 2, 4);
  EXPECT_FALSE(on_disk(small));
  EXPECT_TRUE(on_disk(large));
  large.map() = Rows::Constant(2, 4, 3.0f);
  ScratchRows copy = large;
  copy.map()(0, 1) = 5;
  EXPECT_TRUE(on_disk(copy));
  EXPECT_EQ(large.map()(0, 1), 3);
  EXPECT_EQ(copy.map()(1, 3), 3);
}

/// Where rows lie changes no bit.
TEST(ScratchMatrix, ResultsAreThoseOfMemory) {
  std::vector<int64_t> lengths(11, 500);
  lengths[3] = 7;
  const BlockCase c(6, 0, {0, 2, 3}, lengths);
  const TempDir dir;
  const ScratchPlace memory{dir.path(), int64_t{1} << 40}, disk{dir.path(), 0};
  Context context({.threads = 2});
  const auto study = [&](const ScratchPlace& place) {
    return study_layer(context.impl(), test::block_config(6, 0), c.text, c.heads,
                       {place, c.inputs});
  };
  const LayerStudy one = study(memory), two = study(disk);
  EXPECT_EQ(one.output.map(), two.output.map());
  const Heads merged = closed_form(one, {{0, 1}});
  EXPECT_EQ(merged.v, closed_form(two, {{0, 1}}).v);
  const BlockShape shape(test::block_config(6, 0), c.text, merged);
  const auto refit = [&](const LayerStudy& s, const ScratchPlace& place) {
    return refit_outputs(context.impl(), shape,
                         {.inputs = s.inputs, .target = s.output, .place = place}, merged);
  };
  const OutputFit fit = refit(one, memory), same = refit(two, disk);
  EXPECT_EQ(fit.heads.o, same.heads.o);
  EXPECT_EQ(fit.after, same.after);
  EXPECT_LT(fit.after, fit.before);
}

}  // namespace
}  // namespace gqa
