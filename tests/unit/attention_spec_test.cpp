#include "gqa/attention_spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "support/expect_error.h"

namespace gqa {
namespace {

const std::string kGrammar =
    "exact | block:B | window:W | clustered:C[,PAGES] | global-local:W,B | topk:P | topp:MASS | "
    "lowrank:R[,KEYS] | dynamic:LOSS";

TEST(AttentionSpec, EveryFormReadsAndPrints) {
  const std::pair<const char*, AttentionSpec> specs[] = {
      {"exact", ExactAttention{}},
      {"block:64", BlockLocal{64}},
      {"block:1099511627776", BlockLocal{int64_t{1} << 40}},
      {"window:1", SlidingWindow{1}},
      {"clustered:32", Clustered{32, 0}},
      {"clustered:32,4", Clustered{32, 4}},
      {"global-local:256,16", GlobalLocal{256, 16}},
      {"topk:8", TopPages{8}},
      {"topp:0.95", TopMass{0.95}},
      {"topp:1", TopMass{1}},
      {"topp:1e-300", TopMass{1e-300}},
      {"lowrank:4", LowRank{4}},
      {"lowrank:4,32", LowRank{4, 32}},
      {"dynamic:0", DynamicGroups{0}},
      {"dynamic:0.01", DynamicGroups{0.01}},
  };
  for (const auto& [text, spec] : specs) {
    EXPECT_TRUE(parse_attention(text) == spec) << text;
    EXPECT_EQ(attention_text(spec), text);
  }
}

TEST(AttentionSpec, OtherWaysToWriteTheSame) {
  EXPECT_EQ(attention_text(parse_attention("clustered:32,0")), "clustered:32");
  EXPECT_EQ(attention_text(parse_attention("block:064")), "block:64");
  EXPECT_EQ(attention_text(parse_attention("topp:.5")), "topp:0.5");
  EXPECT_EQ(attention_text(parse_attention("topp:1.000")), "topp:1");
  EXPECT_EQ(attention_text(parse_attention("dynamic:1e-2")), "dynamic:0.01");
}

TEST(AttentionSpec, RealsKeepEveryBit) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (int i = 0; i < 1000; ++i) {
    const AttentionSpec mass = TopMass{1 - uniform(random)};
    EXPECT_TRUE(parse_attention(attention_text(mass)) == mass) << attention_text(mass);
    const AttentionSpec loss = DynamicGroups{std::exp(40 * uniform(random) - 30)};
    EXPECT_TRUE(parse_attention(attention_text(loss)) == loss) << attention_text(loss);
  }
  const AttentionSpec largest = DynamicGroups{std::numeric_limits<double>::max()};
  EXPECT_TRUE(parse_attention(attention_text(largest)) == largest);
}

struct Bad {
  const char* text;
  const char* problem;
  const char* nearest;
};

TEST(AttentionSpec, BadOnesShowTheGrammarAndTheNearest) {
  const Bad cases[] = {
      // unknown names
      {"tokp:8", "no variant 'tokp'", "topk:8"},
      {"topq:0.9", "no variant 'topq'", "topp:0.9"},
      {"topq:9", "no variant 'topq'", "topk:9"},
      {"blok:32", "no variant 'blok'", "block:32"},
      {"Block:32", "no variant 'Block'", "block:32"},
      {"TOPK:8", "no variant 'TOPK'", "topk:8"},
      {" block:32", "no variant ' block'", "block:32"},
      {"block :32", "no variant 'block '", "block:32"},
      {"windows:9", "no variant 'windows'", "window:9"},
      {"cluster:5,2", "no variant 'cluster'", "clustered:5,2"},
      {"global_local:3,4", "no variant 'global_local'", "global-local:3,4"},
      {"low-rank:3", "no variant 'low-rank'", "lowrank:3"},
      {"dynamics:2.5", "no variant 'dynamics'", "dynamic:2.5"},
      {"exakt", "no variant 'exakt'", "exact"},
      {"blok", "no variant 'blok'", "block:64"},
      {"blok:0", "no variant 'blok'", "block:1"},
      {"", "no variant ''", "exact"},
      {"exact ", "no variant 'exact '", "exact"},
      // out of range
      {"block:0", "B is 0, expected at least 1", "block:1"},
      {"block:-3", "B is '-3', expected a whole number, at least 1", "block:1"},
      {"window:0", "W is 0, expected at least 1", "window:1"},
      {"clustered:0,3", "C is 0, expected at least 1", "clustered:1,3"},
      {"clustered:3,-1", "PAGES is '-1', expected a whole number, at least 0", "clustered:3"},
      {"global-local:0,4", "W is 0, expected at least 1", "global-local:1,4"},
      {"global-local:4,0", "B is 0, expected at least 1", "global-local:4,1"},
      {"topk:0", "P is 0, expected at least 1", "topk:1"},
      {"topp:1.5", "MASS is 1.5, expected at most 1", "topp:1"},
      {"topp:0", "MASS is 0, expected above 0 and at most 1", "topp:0.01"},
      {"topp:-1", "MASS is '-1', expected a number, above 0 and at most 1", "topp:0.01"},
      {"lowrank:0", "R is 0, expected at least 1", "lowrank:1"},
      {"lowrank:3,0", "KEYS is 0, expected at least 1", "lowrank:3,1"},
      {"dynamic:-0.5", "LOSS is '-0.5', expected a number, at least 0", "dynamic:0"},
      {"block:1099511627777", "expected at most 1099511627776", "block:1099511627776"},
      {"block:9223372036854775808", "expected at most 1099511627776", "block:1099511627776"},
      {"topk:18446744073709551617", "expected at most 1099511627776", "topk:1099511627776"},
      // no numbers
      {"block:x", "B is 'x', expected a whole number", "block:64"},
      {"block:+64", "B is '+64', expected a whole number", "block:64"},
      {"block: 32", "B is ' 32', expected a whole number", "block:32"},
      {"block:32 ", "B is '32 ', expected a whole number", "block:32"},
      {"block:32x", "B is '32x', expected a whole number", "block:32"},
      {"block:0x20", "B is '0x20', expected a whole number", "block:1"},
      {"block:2.7", "B is '2.7', expected a whole number", "block:3"},
      {"block:1e3", "B is '1e3', expected a whole number", "block:1000"},
      {"block:32:4", "B is '32:4', expected a whole number", "block:32"},
      {"topp:nan", "MASS is 'nan', expected a number", "topp:0.95"},
      {"topp:0.5.1", "MASS is '0.5.1', expected a number", "topp:0.5"},
      {"topp:+0.5", "MASS is '+0.5', expected a number", "topp:0.5"},
      {"topp:0,5", "topp takes MASS, no more", "topp:0.01"},
      {"dynamic:inf", "LOSS is 'inf', expected a number", "dynamic:0.01"},
      {"dynamic:1e999", "LOSS is '1e999', expected a number", "dynamic:0.01"},
      {"dynamic:0x1p-3", "LOSS is '0x1p-3', expected a number", "dynamic:0"},
      // too few and too many
      {"block", "B is missing", "block:64"},
      {"block:", "B is '', expected a whole number", "block:64"},
      {"global-local:128", "B is missing", "global-local:128,64"},
      {"global-local:128,", "B is '', expected a whole number", "global-local:128,64"},
      {"clustered", "C is missing", "clustered:32"},
      {"clustered:8,", "PAGES is '', expected a whole number", "clustered:8,1"},
      {"clustered:8,2,1", "clustered takes C[,PAGES], no more", "clustered:8,2"},
      {"topp", "MASS is missing", "topp:0.95"},
      {"lowrank", "R is missing", "lowrank:8"},
      {"dynamic", "LOSS is missing", "dynamic:0.01"},
      {"exact:1", "exact takes no number", "exact"},
      {"exact:", "exact takes no number", "exact"},
      {"block:64,2", "block takes B, no more", "block:64"},
  };
  for (const auto& [text, problem, nearest] : cases) {
    const std::string message =
        test::expect_error(ErrorKind::usage, {kGrammar, "got '" + std::string(text) + "'", problem},
                           [text = text] { parse_attention(text); });
    const std::string end = "; nearest: " + std::string(nearest);
    EXPECT_TRUE(message.ends_with(end)) << message << "\nexpected" << end;
    EXPECT_EQ(attention_text(parse_attention(nearest)), nearest) << "of " << text;
  }
}

TEST(AttentionSpec, AnyTextReadsOrGetsAValidNeighbour) {
  std::mt19937 random(2);
  const std::string_view alphabet = "blockwindtpsreaxgmy-:,.0159+e \xff";
  for (int i = 0; i < 20000; ++i) {
    std::string text(random() % 14, ' ');
    for (char& c : text) c = alphabet[random() % alphabet.size()];
    try {
      parse_attention(text);
    } catch (const Error& error) {
      const std::string message = error.what();
      const size_t at = message.rfind("; nearest: ");
      ASSERT_NE(at, message.npos) << message;
      EXPECT_NO_THROW(parse_attention(message.substr(at + 11))) << message;
    }
  }
}

}  // namespace
}  // namespace gqa
