// What conversion may not change: the logits of the model.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "gqa/convert.h"
#include "gqa/model.h"
#include "support/model_logits.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::difference;
using test::logits;
using test::TempDir;
using test::TinyLlama;

ConvertOptions manual(std::vector<HeadGroups> groups) {
  ConvertOptions options{.grouping = "neighbour", .merge = "mean"};
  options.kv_heads = static_cast<int64_t>(groups.front().size());
  options.grouping = "manual";
  options.explicit_groups = std::move(groups);
  return options;
}

const TinyLlama grouped{.q_heads = 8, .kv_heads = 4, .tied_head = false, .attention_bias = true};
const TinyLlama windowed{.q_heads = 8, .kv_heads = 4, .window = 6};

TEST(Laws, PermutingHeadsAndExpandingLeavesTheLogits) {
  for (const TinyLlama& model : {grouped, windowed}) {
    const TempDir dir;
    const auto source = test::write_tiny(dir / "source", model);
    // Another order in each layer.
    convert(source, dir / "permuted", manual({{{2}, {0}, {3}, {1}}, {{1}, {3}, {0}, {2}}}));
    expand(dir / "permuted", dir / "expanded", {});
    EXPECT_NE(test::load_tensors(dir / "permuted"), test::load_tensors(source));
    const auto expected = logits(source);
    EXPECT_LE(difference(expected, logits(dir / "permuted")), 1e-5);
    EXPECT_LE(difference(expected, logits(dir / "expanded")), 1e-5);
  }
}

TEST(Laws, APermutedGroupingOfAnExpandedModelIsExact) {
  const TempDir dir;
  const auto source = test::write_tiny(dir / "source", grouped);
  expand(source, dir / "expanded", {});
  // Heads 2i and 2i + 1 of the expanded model are copies of head i.
  convert(dir / "expanded", dir / "regrouped",
          manual({{{7, 6}, {0, 1}, {4, 5}, {3, 2}}, {{2, 3}, {5, 4}, {6, 7}, {1, 0}}}));
  EXPECT_LE(difference(logits(source), logits(dir / "regrouped")), 1e-5);
  // Each merged head is one of the source's, to the bit.
  const auto before = test::load_tensors(source);
  const auto after = test::load_tensors(dir / "regrouped");
  const int64_t order[] = {3, 0, 2, 1};
  for (const char* part : {"k_proj.weight", "v_proj.weight", "k_proj.bias", "v_proj.bias"}) {
    const std::string name = std::string("model.layers.0.self_attn.") + part;
    const auto& old_bytes = before.at(name).bytes;
    const size_t head = old_bytes.size() / 4;
    for (size_t g = 0; g < 4; ++g) {
      EXPECT_EQ(after.at(name).bytes.substr(g * head, head),
                old_bytes.substr(static_cast<size_t>(order[g]) * head, head))
          << name << " " << g;
    }
  }
}

TEST(Laws, GroupingHeadsThatDifferDoesNotLeaveTheLogits) {
  const TempDir dir;
  const auto source = test::write_tiny(dir / "source", grouped);
  convert(source, dir / "merged", manual({{{0, 1}, {2, 3}}, {{0, 1}, {2, 3}}}));
  EXPECT_GT(difference(logits(source), logits(dir / "merged")), 1e-2);
}

}  // namespace
}  // namespace gqa
