// Heads per layer under a budget: the search, what layers lose, and the conversion.
#include "convert/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "gqa/convert.h"
#include "gqa/model.h"
#include "regroup/sensitivity.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::expect_error;
using test::folder_content;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

int64_t sum(const std::vector<int64_t>& heads) {
  return std::accumulate(heads.begin(), heads.end(), int64_t{0});
}

/// The least loss of any choice within the budget, each tried.
double brute_force(const HeadsOptions& layers, int64_t budget, size_t layer = 0) {
  if (budget < 0) return std::numeric_limits<double>::infinity();
  if (layer == layers.size()) return 0;
  double least = std::numeric_limits<double>::infinity();
  for (const HeadsOption& option : layers[layer]) {
    least = std::min(least, option.loss + brute_force(layers, budget - option.kv_heads, layer + 1));
  }
  return least;
}

TEST(Budget, BuysTheLeastLossThatThereIs) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> loss(0.0, 1.0);
  for (int round = 0; round < 300; ++round) {
    HeadsOptions layers(1 + random() % 5);
    for (auto& layer : layers) {
      const int64_t heads = std::array<int64_t, 4>{1, 4, 6, 8}[random() % 4];
      for (int64_t n = 1; n <= heads; ++n) {
        // Measured losses need not fall with the number of heads.
        if (heads % n == 0) layer.push_back({n, loss(random)});
      }
    }
    for (int64_t budget = 0; budget <= 41; ++budget) {
      const auto heads = cheapest_heads(layers, budget);
      const double least = brute_force(layers, budget);
      ASSERT_EQ(heads.empty(), std::isinf(least)) << budget;
      if (heads.empty()) continue;
      EXPECT_LE(sum(heads), budget);
      EXPECT_NEAR(total_loss(layers, heads), least, 1e-12);
    }
  }
}

TEST(Budget, OfEqualLossesTakesTheFewestHeads) {
  const HeadsOptions layers = {{{1, 0.5}, {2, 0.5}, {4, 0.5}}, {{1, 1}, {2, 0.25}, {4, 0.25}}};
  EXPECT_THAT(cheapest_heads(layers, 8), ElementsAre(1, 2));
}

TEST(Budget, KnowsTheSameNumberInEveryLayer) {
  const HeadsOptions layers = {{{1, 3}, {2, 2}, {4, 0}}, {{1, 3}, {2, 2}, {3, 1}, {6, 0}}};
  EXPECT_THAT(uniform_heads(layers, 10), ElementsAre(2, 2));
  EXPECT_THAT(uniform_heads(layers, 3), ElementsAre(1, 1));
  EXPECT_THAT(uniform_heads(layers, 1), IsEmpty());
}

/// Logits of each window's every token, one row after the other.
std::vector<float> logits_of(const std::filesystem::path& folder, const CalibrationWindows& text) {
  Context context({.threads = 1});
  const Model model = Model::load(folder);
  KvCache cache = model.make_cache(KvDType::f32);
  std::vector<float> all;
  for (const auto& window : text.windows) {
    std::vector<float> hidden;
    const Model::Step step{cache.create(), window};
    model.forward(context, cache, std::span(&step, 1), hidden);
    std::vector<float> logits(window.size() * size_t(model.config().vocab_size));
    model.logits(context, hidden, logits);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

double mean_kl(const std::vector<float>& p, const std::vector<float>& q, size_t vocab) {
  double kl = 0;
  for (size_t row = 0; row < p.size(); row += vocab) {
    double p_sum = 0;
    double q_sum = 0;
    for (size_t i = row; i < row + vocab; ++i) {
      p_sum += std::exp(double{p[i]});
      q_sum += std::exp(double{q[i]});
    }
    for (size_t i = row; i < row + vocab; ++i) {
      const double share = std::exp(double{p[i]}) / p_sum;
      kl += share * std::log(share / (std::exp(double{q[i]}) / q_sum));
    }
  }
  return kl / static_cast<double>(p.size() / vocab);
}

CalibrationWindows three_windows() {
  CalibrationWindows text;
  text.add({1, 5, 17, 3, 3, 9, 12});
  text.add({1, 2, 18, 7});
  text.add({1, 11, 4, 4, 13});
  return text;
}

/// What it says of layers is what models converted so predict.
TEST(Sensitivity, IsTheDivergenceOfTheConvertedModel) {
  const CalibrationWindows text = three_windows();
  for (const bool biased : {false, true}) {
    const TempDir dir;
    const auto in =
        write_tiny(dir / "in", {.n_layers = 3, .kv_heads = 4, .attention_bias = biased});
    const std::vector<float> original = logits_of(in, text);
    const ModelConfig config = load_config(in);
    Context context({.threads = 2});
    const Weights weights(config, in, WeightDType::stored, {});
    const Checkpoint checkpoint = Checkpoint::open(in);
    const auto load = [&](const Checkpoint& from, int64_t layer) {
      return load_heads(config, layer, attention_tensors(from, layer));
    };
    const auto load_original = [&](int64_t layer) { return load(checkpoint, layer); };
    Sensitivity all(context, config, weights, text, 100, load_original, {});
    Sensitivity some(context, config, weights, text, 9, load_original, {});
    for (int64_t layer = 0; layer < 3; ++layer) {
      const HeadGroups whole = {{0}, {1}, {2}, {3}};
      std::vector<HeadGroups> groups(3, whole);
      groups[size_t(layer)] = {{0, 1, 2, 3}};
      const auto out = dir / std::to_string(layer);
      convert(in, out, {.grouping = "manual", .merge = "mean", .explicit_groups = groups});
      const Checkpoint changed = Checkpoint::open(out);
      const Heads heads = load_heads(load_config(out), layer, attention_tensors(changed, layer));
      const double kl = mean_kl(original, logits_of(out, text), 19);
      ASSERT_GT(kl, 1e-3);
      const auto found = all.divergences(layer, {heads, load_original(layer)}, {});
      EXPECT_NEAR(found[0], kl, 1e-4 * kl);
      EXPECT_EQ(found[1], 0);
      // Windows 0 and 2 are too many; so window 0 alone is looked at.
      CalibrationWindows first;
      first.add(text.windows[0]);
      const double kl_of_first = mean_kl(logits_of(in, first), logits_of(out, first), 19);
      EXPECT_NEAR(some.divergences(layer, {heads}, {})[0], kl_of_first, 1e-4 * kl_of_first);
    }
  }
}

TEST(BudgetConversion, StaysWithinItsShare) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {.n_layers = 4, .kv_heads = 4});
  for (const double budget : {1.0, 0.75, 0.5, 0.3125, 0.25}) {
    const ConvertOptions options{.budget = budget};
    const Conversion conversion = plan_convert(in, options);
    const ConvertPlan& plan = conversion.plan();
    EXPECT_LE(sum(plan.result.kv_heads), static_cast<int64_t>(budget * 16));
    EXPECT_EQ(plan.budget, budget);
  }
  EXPECT_THAT(plan_convert(in, {.budget = 1.0}).plan().result.kv_heads, ElementsAre(4, 4, 4, 4));
  EXPECT_THAT(plan_convert(in, {.budget = 0.25}).plan().result.kv_heads, ElementsAre(1, 1, 1, 1));
}

/// A layer whose heads are all alike gives its heads away.
TEST(BudgetConversion, SparesLayersThatLose) {
  const TempDir dir;
  const TinyLlama m{.n_layers = 2, .q_heads = 4, .kv_heads = 4};
  auto tensors = test::tiny_tensors(m);
  for (auto& tensor : tensors) {
    const bool alike =
        tensor.name.starts_with("model.layers.0.") &&
        (tensor.name.ends_with("k_proj.weight") || tensor.name.ends_with("v_proj.weight"));
    if (!alike) continue;
    const size_t head = tensor.data.size() / 4;
    for (size_t g = 1; g < 4; ++g) {
      std::copy_n(tensor.data.begin(), head, tensor.data.begin() + std::ptrdiff_t(g * head));
    }
  }
  std::filesystem::create_directory(dir / "in");
  test::put_file(dir / "in" / "config.json", test::tiny_config(m).dump());
  test::write_shards(dir / "in", tensors, 1);
  EXPECT_THAT(plan_convert(dir / "in", {.budget = 0.625}).plan().result.kv_heads,
              ElementsAre(1, 4));
}

TEST(BudgetConversion, RecipeGivesTheSameBytes) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {.n_layers = 3, .kv_heads = 4});
  convert(in, dir / "out", {.budget = 0.6, .seed = 7});
  const auto first = folder_content(dir / "out");
  EXPECT_THAT(first.at("README.md"), HasSubstr("--budget 0.6 "));
  EXPECT_THAT(first.at("README.md"), HasSubstr("| budget | 0.6 of"));
  const ConvertOptions read = read_recipe(dir / "out" / "gqa_recipe.json", in);
  EXPECT_EQ(read.budget, 0.6);
  EXPECT_EQ(read.explicit_groups.size(), 3u);  // so that nothing is searched again
  convert(in, dir / "again", read);
  EXPECT_EQ(folder_content(dir / "again"), first);
}

TEST(BudgetConversion, RefusesWhatDoesNotFit) {
  const TempDir dir;
  const auto in = write_tiny(dir / "in", {.kv_heads = 4});
  const auto refused = [&](const ConvertOptions& options,
                           std::initializer_list<std::string_view> words) {
    expect_error(ErrorKind::usage, words, [&] { plan_convert(in, options); });
  };
  refused({.budget = 0}, {"budget", "above 0"});
  refused({.budget = 1.01}, {"budget", "at most 1", "1.01"});
  refused({.budget = std::nan("")}, {"budget"});
  refused({.budget = 0.2}, {"0.2", "1 of 8", "at least 0.25"});
  refused({.kv_heads = 2, .budget = 0.5}, {"exclude"});
  refused({.budget = 0.5, .grouping = "manual"}, {"manual"});
  refused({.budget = 0.5, .unequal = true}, {"unequal"});
}

}  // namespace
}  // namespace gqa
