// What products ask for beside their steps: all of it, once, evenly.
#include "kernels/ahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace gqa::kernels {
namespace {

constexpr int64_t line = ahead_line;

/// A product of so many passes, each of so many steps, which ask for so many bytes each.
struct Walk {
  int64_t passes, steps, bytes;
};

/// The lines that each pass asks for, by their offset in memory.
std::vector<std::vector<int64_t>> asked(const char* memory, const Ahead& ahead, const Walk& walk) {
  std::vector<std::vector<int64_t>> lines(static_cast<size_t>(walk.passes));
  AheadSteps steps(ahead, walk.passes);
  for (auto& of_pass : lines) {
    steps.begin_pass();
    int64_t left = walk.steps;
    while (const int64_t n = steps.steps(walk.bytes, left)) {
      EXPECT_GT(n, 0);
      EXPECT_LE(n, left);
      for (int64_t i = 0; i < n * walk.bytes; i += line) {
        of_pass.push_back(steps.next() + i - memory);
      }
      steps.skip(n * walk.bytes);
      left -= n;
    }
  }
  return lines;
}

std::vector<int64_t> lines_of(const char* memory, const Ahead& ahead) {
  std::vector<int64_t> lines;
  for (const Ahead::Piece& piece : ahead.pieces) {
    for (int64_t i = 0; i < piece.bytes; i += line) lines.push_back(piece.data + i - memory);
  }
  return lines;
}

/// Pieces of so many lines, far from each other.
Ahead ahead_of(const char* memory, int64_t first, int64_t second) {
  return {.pieces = {{{memory, first * line}, {memory + 4096 * line, second * line}}}};
}

TEST(AheadSteps, AskForEverythingOnceInOrder) {
  const std::vector<char> memory(8192 * line);
  for (const int64_t first : {0, 1, 7, 64, 129}) {
    for (const int64_t second : {0, 1, 33}) {
      for (const Walk& walk : {Walk{1, 400, line}, Walk{4, 64, line}, Walk{8, 40, 2 * line},
                               Walk{3, 70, 4 * line}, Walk{24, 16, 8 * line}}) {
        const Ahead ahead = ahead_of(memory.data(), first, second);
        const std::vector<int64_t> wanted = lines_of(memory.data(), ahead);
        std::vector<int64_t> all;
        for (const auto& of_pass : asked(memory.data(), ahead, walk)) {
          all.insert(all.end(), of_pass.begin(), of_pass.end());
        }
        EXPECT_TRUE(std::is_sorted(all.begin(), all.end()));
        EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
        EXPECT_TRUE(std::includes(all.begin(), all.end(), wanted.begin(), wanted.end()))
            << first << " + " << second << " lines, " << walk.passes << " passes";
        // At most the last step of each piece goes beyond it.
        EXPECT_LE(std::ssize(all) - std::ssize(wanted), 2 * (walk.bytes / line - 1));
      }
    }
  }
}

TEST(AheadSteps, AskForAsMuchInEachPass) {
  const std::vector<char> memory(8192 * line);
  const Walk walk{8, 64, line};
  for (const auto& of_pass : asked(memory.data(), ahead_of(memory.data(), 150, 74), walk)) {
    EXPECT_EQ(of_pass.size(), 28U);
  }
}

TEST(AheadSteps, CarryOverWhatAPassHadNoStepsFor) {
  const std::vector<char> memory(8192 * line);
  AheadSteps steps(ahead_of(memory.data(), 20, 0), 2);
  steps.begin_pass();
  EXPECT_EQ(steps.steps(line, 4), 4);
  steps.skip(4 * line);
  steps.begin_pass();
  EXPECT_EQ(steps.steps(line, 100), 16);
}

TEST(AheadSteps, TakeBackWhatALongStepAskedForBeyondItsShare) {
  const std::vector<char> memory(8192 * line);
  AheadSteps steps(ahead_of(memory.data(), 20, 0), 10);
  steps.begin_pass();
  EXPECT_EQ(steps.steps(8 * line, 100), 1);
  steps.skip(8 * line);
  EXPECT_EQ(steps.steps(line, 100), 0);
  for (int i = 0; i < 3; ++i) {
    steps.begin_pass();
    EXPECT_EQ(steps.steps(line, 100), 0);
  }
  steps.begin_pass();
  EXPECT_EQ(steps.steps(line, 100), 2);
}

TEST(AheadSteps, AreSharedByThePassesOfAllTiles) {
  const auto passes = [](int64_t rows) { return rows == 1 ? 1 : 4; };
  EXPECT_EQ(passes_over(1, 6, passes), 1);
  EXPECT_EQ(passes_over(4, 6, passes), 4);
  EXPECT_EQ(passes_over(6, 6, passes), 4);
  EXPECT_EQ(passes_over(7, 6, passes), 5);
  EXPECT_EQ(passes_over(32, 6, passes), 24);
}

}  // namespace
}  // namespace gqa::kernels
