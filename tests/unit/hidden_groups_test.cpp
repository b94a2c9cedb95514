// Conversion finds the groups of a model that hides them.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "gqa/convert.h"
#include "gqa/eval.h"
#include "regroup/heads.h"
#include "support/change_heads.h"
#include "support/hidden_groups.h"
#include "support/model_logits.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::difference;
using test::logits;
using test::TempDir;
using test::TinyLlama;

enum class Places { kept, shuffled };

/// The folder again, every head of every layer in another basis and maybe another place: the same
/// model.
void hide(const fs::path& from, const fs::path& to, uint64_t seed, Places places) {
  std::mt19937_64 random(seed);
  test::change_heads(from, to, [&](Heads heads) {
    for (int64_t g = 0; g < heads.kv_heads(); ++g) test::change_basis(heads, g, random);
    std::vector<int64_t> order(static_cast<size_t>(heads.kv_heads()));
    std::iota(order.begin(), order.end(), 0);
    if (places == Places::shuffled) std::shuffle(order.begin(), order.end(), random);
    return test::reordered(heads, order);
  });
}

/// Ways to find and merge them.
std::vector<ConvertOptions> methods(int64_t kv_heads) {
  ConvertOptions weights{.kv_heads = kv_heads, .merge = "aligned"};
  ConvertOptions principal{.kv_heads = kv_heads, .merge = "pca"};
  ConvertOptions calibrated = principal;
  calibrated.calibration = Calibration{.text = {}, .sampled_tokens = 300, .steps = 2};
  return {weights, principal, calibrated};
}

TEST(HiddenGroups, ConversionFindsThemInEveryLayer) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    const bool biased = seed % 2 == 0;
    const TinyLlama tiny{.n_layers = 3,
                         .width = 14,
                         .q_heads = 6,
                         .kv_heads = 2,
                         .tied_head = false,
                         .attention_bias = biased,
                         .seed = seed};
    const TempDir dir;
    const auto original = test::write_tiny(dir / "original", tiny);
    expand(original, dir / "expanded", {});
    hide(dir / "expanded", dir / "hidden", seed, Places::shuffled);
    const auto want = logits(original);
    // Float weights of maps with condition numbers up to e^4.
    constexpr double exact = 1e-4;
    ASSERT_LT(difference(want, logits(dir / "hidden")), exact);
    ConvertOptions plain{.kv_heads = 2, .grouping = "neighbour", .merge = "mean"};
    convert(dir / "hidden", dir / "plain", plain);
    EXPECT_GT(difference(want, logits(dir / "plain")), 0.01);
    for (ConvertOptions options : methods(2)) {
      options.output.force = true;
      convert(dir / "hidden", dir / "found", options);
      EXPECT_EQ(load_config(dir / "found").kv_heads, std::vector<int64_t>(3, 2));
      EXPECT_LT(difference(want, logits(dir / "found")), exact)
          << options.merge << seed << bool(options.calibration);
    }
  }
}

/// What is left to choose must not depend on the bases either, where groups are not hidden.
TEST(HiddenGroups, ResultsDoNotDependOnTheBasis) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    const TinyLlama tiny{
        .width = 14, .q_heads = 6, .kv_heads = 6, .tied_head = false, .seed = seed};
    const TempDir dir;
    const auto original = test::write_tiny(dir / "original", tiny);
    // Neighbours, which are a candidate, are others in other places.
    hide(original, dir / "other", seed, Places::kept);
    ASSERT_LT(difference(logits(original), logits(dir / "other")), 1e-4);
    for (ConvertOptions options : methods(3)) {
      if (options.calibration) options.calibration->steps = 0;
      options.output.force = true;
      convert(original, dir / "one", options);
      convert(dir / "other", dir / "two", options);
      const auto one = logits(dir / "one");
      EXPECT_LT(difference(one, logits(dir / "two")), 1e-4)
          << options.merge << seed << bool(options.calibration);
      EXPECT_GT(difference(one, logits(original)), 1e-2);
    }
  }
}

}  // namespace
}  // namespace gqa
