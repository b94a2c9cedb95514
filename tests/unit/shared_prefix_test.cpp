#include "model/shared_prefix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string_view>

namespace gqa {
namespace {

using Prompts = std::vector<std::vector<int32_t>>;

std::vector<SharedPrefix> plan_of(const Prompts& prompts, int64_t window) {
  const std::vector<std::span<const int32_t>> spans(prompts.begin(), prompts.end());
  return share_prefixes(spans, window);
}

/// A run of ids for each letter: 'a' is 20 ids of 'a'.
std::vector<int32_t> runs(std::string_view letters, int64_t length = 20) {
  std::vector<int32_t> ids;
  for (const char c : letters) ids.insert(ids.end(), static_cast<size_t>(length), c);
  return ids;
}

int64_t alike(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  int64_t n = 0;
  while (n < std::ssize(a) && n < std::ssize(b) &&
         a[static_cast<size_t>(n)] == b[static_cast<size_t>(n)])
    ++n;
  return n;
}

TEST(SharedPrefix, TheFirstOfManyLendsToAll) {
  const auto plan = plan_of({runs("ab"), runs("ac"), runs("ad"), runs("a")}, 8);
  EXPECT_EQ(plan[0].donor, std::nullopt);
  EXPECT_EQ(plan[0].needed, 20);
  for (const size_t i : {1, 2, 3}) {
    EXPECT_EQ(plan[i].donor, 0u) << i;
    EXPECT_EQ(plan[i].tokens, i == 3 ? 19 : 20) << "the last token is always computed";
    EXPECT_EQ(plan[i].needed, 0) << i;
  }
  EXPECT_EQ(plan[1].donor_needed_then, 20);
  EXPECT_EQ(plan[2].donor_needed_then, 19);
  EXPECT_EQ(plan[3].donor_needed_then, 0);
}

TEST(SharedPrefix, WhatABranchAddsIsSharedToo) {
  const auto plan = plan_of({runs("ab"), runs("acd"), runs("ace"), runs("abf")}, 8);
  EXPECT_EQ(plan[1].donor, 0u);
  EXPECT_EQ(plan[2].donor, 1u);
  EXPECT_EQ(plan[2].tokens, 40);
  EXPECT_EQ(plan[3].donor, 0u);
  EXPECT_EQ(plan[3].tokens, 40);
}

TEST(SharedPrefix, NextToNothingIsNotShared) {
  EXPECT_EQ(plan_of({runs("ab", 15), runs("ac", 15)}, 8)[1].donor, std::nullopt);
  EXPECT_EQ(plan_of({runs("ab", 16), runs("ac", 16)}, 8)[1].donor, 0u);
  // Chance likenesses after the common beginning: nobody waits for the second prompt.
  auto second = runs("a", 50);
  auto third = second;
  for (const int32_t id : {7, 7, 7, 1}) second.push_back(id);
  for (const int32_t id : {7, 7, 7, 2}) third.push_back(id);
  const auto plan = plan_of({runs("ab", 50), second, third}, 8);
  EXPECT_EQ(plan[2].donor, 0u);
  EXPECT_EQ(plan[2].tokens, 50);
}

TEST(SharedPrefix, OnlyThoseInTheWindowLend) {
  const Prompts prompts{runs("a"), runs("b"), runs("c"), runs("a")};
  EXPECT_EQ(plan_of(prompts, 3)[3].donor, 0u);
  EXPECT_EQ(plan_of(prompts, 2)[3].donor, std::nullopt);
  const auto equal = plan_of({runs("a"), runs("a"), runs("a"), runs("a")}, 2);
  EXPECT_EQ(equal[2].donor, 0u);
  EXPECT_EQ(equal[3].donor, 2u) << "the first is too far";
}

TEST(SharedPrefix, NoPromptsNoPlan) { EXPECT_TRUE(plan_of({}, 4).empty()); }

/// What the plan promises, against every pair of prompts.
TEST(SharedPrefix, RandomPromptsShareAlmostAllTheyCould) {
  std::mt19937 random(3);
  const auto below = [&](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(random);
  };
  int64_t shared = 0;
  for (int round = 0; round < 200; ++round) {
    Prompts prompts;
    for (size_t i = 0; i < 30; ++i) {  // each grows out of an earlier one, cut somewhere
      std::vector<int32_t> ids = i == 0 ? std::vector<int32_t>{1} : prompts[below(i)];
      ids.resize(1 + below(ids.size()));
      for (size_t n = below(60); n > 0; --n) ids.push_back(static_cast<int32_t>(below(2)));
      prompts.push_back(ids);
    }
    const auto window = static_cast<int64_t>(1 + below(12));
    const auto plan = plan_of(prompts, window);
    std::vector<int64_t> needed(prompts.size(), 0);
    for (size_t i = prompts.size(); i-- > 0;) {
      EXPECT_EQ(plan[i].needed, needed[i]);
      int64_t best = 0;
      for (size_t j = i - std::min(i, static_cast<size_t>(window)); j < i; ++j) {
        best = std::max(best, alike(prompts[i], prompts[j]));
      }
      best = std::min(best, std::ssize(prompts[i]) - 1);
      ASSERT_EQ(plan[i].donor.has_value(), best >= least_shared);
      if (!plan[i].donor) continue;
      const size_t donor = *plan[i].donor;
      ASSERT_LT(donor, i);
      EXPECT_LE(i - donor, static_cast<size_t>(window));
      EXPECT_LE(plan[i].tokens, std::min(best, alike(prompts[i], prompts[donor])));
      EXPECT_GT(plan[i].tokens, best - least_shared);
      EXPECT_EQ(plan[i].donor_needed_then, needed[donor]);
      needed[donor] = std::max(needed[donor], plan[i].tokens);
      shared += plan[i].tokens;
    }
  }
  EXPECT_GT(shared, 10'000);
}

}  // namespace
}  // namespace gqa
