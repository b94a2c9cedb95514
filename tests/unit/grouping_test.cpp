// Which heads become one, and what random merging draws.
#include "convert/grouping.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "convert/elements.h"
#include "convert/learned_groups.h"
#include "core/random.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::expect_error;
using test::load_tensors;
using test::put_file;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;

ModelConfig with_heads(std::vector<int64_t> kv_heads) {
  ModelConfig config;
  config.n_layers = std::ssize(kv_heads);
  config.q_heads = 32;
  config.kv_heads = std::move(kv_heads);
  config.head_dim = 8;
  return config;
}

ConvertOptions options_for(int64_t kv_heads, std::string grouping, uint64_t seed = 0) {
  ConvertOptions options{.merge = "mean"};
  options.kv_heads = kv_heads;
  options.grouping = std::move(grouping);
  options.seed = seed;
  return options;
}

TEST(Grouping, Neighbours) {
  const auto groups = make_groups(with_heads({8, 4}), options_for(2, "neighbour"));
  const std::vector<HeadGroups> expected = {{{0, 1, 2, 3}, {4, 5, 6, 7}}, {{0, 1}, {2, 3}}};
  EXPECT_EQ(groups, expected);
}

TEST(Grouping, RandomIsACanonicalPartition) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const auto& groups : make_groups(with_heads({12, 32}), options_for(4, "random", seed))) {
      std::set<int64_t> seen;
      int64_t last_first = -1;
      for (const auto& group : groups) {
        EXPECT_EQ(group.size(), groups[0].size());
        EXPECT_TRUE(std::ranges::is_sorted(group));
        EXPECT_GT(group[0], last_first);
        last_first = group[0];
        seen.insert(group.begin(), group.end());
      }
      EXPECT_EQ(seen.size(), 4 * groups[0].size());
      EXPECT_EQ(*seen.rbegin(), std::ssize(seen) - 1);
    }
  }
}

TEST(Grouping, RandomDependsOnSeedAndLayerAlone) {
  const ModelConfig config = with_heads(std::vector<int64_t>(6, 32));
  const auto groups = make_groups(config, options_for(8, "random", 1));
  EXPECT_EQ(groups, make_groups(config, options_for(8, "random", 1)));
  const auto others = make_groups(config, options_for(8, "random", 2));
  for (size_t l = 0; l < 6; ++l) EXPECT_NE(groups[l], others[l]);
  EXPECT_EQ(std::set(groups.begin(), groups.end()).size(), 6u);
  EXPECT_EQ(make_groups(with_heads({32}), options_for(8, "random", 1))[0], groups[0]);
  // The same on every machine, and in every version: recipes rely on it.
  const HeadGroups known = make_groups(with_heads({8}), options_for(2, "random", 7))[0];
  EXPECT_EQ(known, (HeadGroups{{0, 4, 5, 7}, {1, 2, 3, 6}}));
}

TEST(Grouping, EveryPairMeetsAboutAsOften) {
  std::map<int64_t, int> with_zero;
  constexpr int draws = 4000;
  for (uint64_t seed = 0; seed < draws; ++seed) {
    const auto groups = make_groups(with_heads({6}), options_for(3, "random", seed));
    ++with_zero[groups[0][0][1]];
  }
  for (int64_t head = 1; head < 6; ++head) EXPECT_NEAR(with_zero[head], draws / 5, 120) << head;
}

TEST(Grouping, NumbersThatDoNotDivide) {
  const auto refused = [](int64_t n, std::vector<int64_t> heads, const char* choices) {
    expect_error(ErrorKind::usage, {fmt::format("kv_heads {} ", n), choices},
                 [&] { make_groups(with_heads(heads), options_for(n, "neighbour")); });
  };
  for (const int64_t n :
       {int64_t{0}, int64_t{-1}, int64_t{5}, int64_t{24}, std::numeric_limits<int64_t>::min()}) {
    refused(n, {12, 12}, "12 KV heads");
    refused(n, {12, 12}, "choices: 1, 2, 3, 4, 6, 12");
  }
  refused(8, {8, 4}, "choices: 1, 2, 4");
  refused(8, {8, 4}, "[8, 4] KV heads");
}

TEST(Grouping, UnknownNames) {
  expect_error(ErrorKind::usage, {"kmeens", "neighbour", "random", "manual:FILE"},
               [] { make_groups(with_heads({8}), options_for(2, "kmeens")); });
  expect_error(ErrorKind::usage, {"manual:", "file"},
               [] { make_groups(with_heads({8}), options_for(2, "manual:")); });
  expect_error(ErrorKind::usage, {"explicit_groups"},
               [] { make_groups(with_heads({8}), options_for(2, "manual")); });
}

TEST(Grouping, ExplicitGroups) {
  ConvertOptions options = options_for(2, "manual");
  options.explicit_groups = {{{3, 1}, {0, 2}}};
  EXPECT_EQ(make_groups(with_heads({4}), options), options.explicit_groups);
  expect_error(ErrorKind::usage, {"1 layers", "expected 2"}, [&] {
    make_groups(with_heads({4, 4}), options);
  });
  options.grouping = "random";
  expect_error(ErrorKind::usage, {"explicit_groups", "random"},
               [&] { make_groups(with_heads({4}), options); });
}

TEST(Grouping, FilesThatDoNotPart) {
  const TempDir dir;
  const auto refused = [&](const char* text, std::initializer_list<std::string_view> words) {
    put_file(dir / "groups.json", text);
    const std::string message = expect_error(ErrorKind::bad_data, words, [&] {
      make_groups(with_heads({4, 4}), options_for(2, "manual:" + (dir / "groups.json").string()));
    });
    EXPECT_THAT(message, testing::HasSubstr("groups.json"));
  };
  refused("[[0,1],[2,4]]", {"layer 0", "head 4", "0 to 3"});
  refused("[[0,1],[2,-1]]", {"layer 0", "head -1"});
  refused("[[0,1],[2,1]]", {"layer 0", "head 1", "group 0", "group 1"});
  refused("[[0,1,2],[3]]", {"layer 0", "group 0", "3 heads", "expected 2"});
  refused("[[0,1,2,3]]", {"1 groups", "expected 2"});
  refused("[]", {"0 groups", "expected 2"});
  refused("[[[0,1],[2,3]]]", {"1 layers", "expected 2"});
  refused("[[[0,1],[2,3]],[[0,1],[3,3]]]", {"layer 1", "head 3"});
  refused("[[[0,1],[2,3]],[0,1]]", {"layer 1", "group 0", "list of heads", "got 0"});
  refused("[[0,1],[2,3.5]]", {"group 1", "3.5"});
  refused("[[0,1],[2,\"3\"]]", {"group 1", "\"3\""});
  refused("[[0,1],[2,18446744073709551615]]", {"group 1", "18446744073709551615"});
  refused("{\"groups\":[]}", {"list of groups"});
  refused("[[0,1],[2,", {"JSON"});
  expect_error(ErrorKind::no_input, {"none.json"}, [&] {
    make_groups(with_heads({4}), options_for(2, "manual:" + (dir / "none.json").string()));
  });
}

TEST(RandomMerge, DrawsNormalHeadsAndZeroBiases) {
  const TinyLlama m{.n_layers = 2, .width = 90, .head_dim = 24, .attention_bias = true};
  const TempDir dir;
  write_tiny(dir / "in", m);
  ConvertOptions options = options_for(4, "neighbour", 5);
  options.merge = "random";
  convert(dir / "in", dir / "out", options);
  const auto from = load_tensors(dir / "in"), to = load_tensors(dir / "out");
  std::set<std::string> drawn;
  for (const auto& [name, tensor] : to) {
    const bool is_kv = name.find("k_proj") != name.npos || name.find("v_proj") != name.npos;
    if (!is_kv) {
      EXPECT_EQ(tensor, from.at(name)) << name;
      continue;
    }
    double sum = 0, squares = 0, fourth = 0;
    for (const float value : tensor.values) {
      const double x = static_cast<double>(value) / 0.02;  // the default initializer_range
      sum += x;
      squares += x * x;
      fourth += x * x * x * x;
    }
    const auto n = static_cast<double>(tensor.values.size());
    if (name.ends_with("bias")) {
      EXPECT_EQ(squares, 0) << name;
      continue;
    }
    EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n)) << name;
    EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2 / n)) << name;
    EXPECT_NEAR(fourth / n, 3, 5 * std::sqrt(96 / n)) << name;
    drawn.insert(tensor.bytes);
  }
  EXPECT_EQ(drawn.size(), 4u) << "K and V of two layers must all differ";
  options.seed = 6;
  convert(dir / "in", dir / "other", options);
  const std::string k = "model.layers.0.self_attn.k_proj.weight";
  EXPECT_NE(load_tensors(dir / "other").at(k), to.at(k));
}

TEST(Random, StreamsAreApart) {
  std::set<uint64_t> first;
  for (const auto use : {RandomUse::grouping, RandomUse::merge}) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      for (int64_t layer = 0; layer < 10; ++layer) {
        first.insert(Random(seed, use, layer).below(std::numeric_limits<uint64_t>::max()));
      }
    }
  }
  EXPECT_EQ(first.size(), 200u);
}

TEST(Elements, DoublesAreRoundedOnce) {
  const auto stored = [](double x, DType t) {
    std::byte bytes[4];
    EXPECT_FALSE(encode_elements(&x, 1, t, bytes)) << x;
    float back = 0;
    decode_elements(bytes, t, 1, &back);
    return static_cast<double>(back);
  };
  // Just beside the middle of two values: by way of f32 these would be ties.
  EXPECT_EQ(stored(1 + 0x1p-11 + 0x1p-40, DType::f16), 1 + 0x1p-10);
  EXPECT_EQ(stored(1 + 3 * 0x1p-11 - 0x1p-40, DType::f16), 1 + 0x1p-10);
  EXPECT_EQ(stored(-1 - 0x1p-8 - 0x1p-40, DType::bf16), -1 - 0x1p-7);
  EXPECT_EQ(stored(0x1p-25 + 0x1p-60, DType::f16), 0x1p-24);
  EXPECT_EQ(stored(1 + 0x1p-11, DType::f16), 1);
  EXPECT_EQ(stored(0x1p-200, DType::bf16), 0);
  EXPECT_TRUE(std::signbit(stored(-0x1p-200, DType::f32)));
  EXPECT_EQ(stored(65519.999999, DType::f16), 65504);
}

TEST(Elements, OverflowIsToldWhereItIsFirst) {
  const double values[] = {1, 65504, 65520, 1e9};
  std::byte bytes[16];
  EXPECT_EQ(encode_elements(values, 4, DType::f16, bytes), 2);
  EXPECT_EQ(encode_elements(values, 2, DType::f16, bytes), std::nullopt);
  const float floats[] = {1, 3.39e38f, 3.4e38f};
  EXPECT_EQ(encode_elements(floats, 3, DType::bf16, bytes), 2);
  const double huge[] = {-1e300};
  EXPECT_EQ(encode_elements(huge, 1, DType::f32, bytes), 0);
  EXPECT_EQ(encode_elements(huge, 1, DType::bf16, bytes), 0);
}

TEST(ClearlyLess, AsksForTwiceTheStandardError) {
  // Gains 1, 2, 3 have mean 2, deviation 1 and standard error 0.58; shifted down by 0.9, mean 1.1.
  EXPECT_TRUE(clearly_less({4, 4, 4}, {5, 6, 7}));
  EXPECT_FALSE(clearly_less({4.9, 4.9, 4.9}, {5, 6, 7}));
  EXPECT_TRUE(clearly_less({4.8, 4.8, 4.8}, {5, 6, 7}));
  EXPECT_FALSE(clearly_less({5, 6, 7}, {4, 4, 4}));
  EXPECT_FALSE(clearly_less({3, 8, 1}, {3, 8, 1}));
  EXPECT_TRUE(clearly_less({0.9}, {1}));
  EXPECT_FALSE(clearly_less({1}, {1}));
}

}  // namespace
}  // namespace gqa
