// Whole models that were refined, held against the same ones merged alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "gqa/error.h"
#include "gqa/model.h"
#include "gqa/tokenizer.h"
#include "regroup/calibration.h"
#include "support/model_logits.h"
#include "support/refined_case.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;
using test::folder_content;
using test::get_file;

/// Log probabilities of what follows each token, [tokens][vocab].
std::vector<std::vector<double>> log_probabilities(const fs::path& folder,
                                                   const std::vector<int32_t>& tokens) {
  const Model model = Model::load(folder);
  const std::vector<float> logits = test::logits(model, tokens);
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  std::vector<std::vector<double>> result;
  for (size_t t = 0; t < tokens.size(); ++t) {
    double sum = 0;
    for (size_t i = 0; i < vocab; ++i) sum += std::exp(double{logits[t * vocab + i]});
    auto& row = result.emplace_back();
    for (size_t i = 0; i < vocab; ++i) row.push_back(logits[t * vocab + i] - std::log(sum));
  }
  return result;
}

class RefinedModel : public test::RefinedCase {
 protected:
  RefinedModel() {
    options_.calibration->compared = [this](ModelRefinement& model) {
      told_.push_back(model);
      if (kept_) model.kept = *kept_;
    };
  }

  void run(const char* out, const Progress& progress = {}) {
    told_.clear();
    convert(dir_ / "in", dir_ / out, options_, progress);
  }

  /// The folder's weights and key directions.
  std::map<std::string, std::string> tensors(const char* out) const {
    auto files = folder_content(dir_ / out);
    std::erase_if(files, [](const auto& file) { return !file.first.ends_with(".safetensors"); });
    EXPECT_GT(files.size(), 1u);
    return files;
  }

  /// How often progress is called.
  int64_t calls(const char* out) {
    int64_t n = 0;
    run(out, [&](std::string_view, int64_t, int64_t) { ++n; });
    return n;
  }

  /// Mean KL(in || out) on the window that is held out: of five, the last.
  double divergence(const char* out) const {
    const ModelConfig config = load_config(dir_ / "in");
    const Tokenizer tokenizer = Tokenizer::load(dir_ / "in/tokenizer.json");
    const auto text =
        cut_windows(config, tokenizer, get_file(dir_ / "text.txt"), "text", 1000, 16).windows;
    EXPECT_EQ(text.size(), 5u);
    const auto p = log_probabilities(dir_ / "in", text.back());
    const auto q = log_probabilities(dir_ / out, text.back());
    double sum = 0;
    for (size_t t = 0; t < p.size(); ++t) {
      for (size_t i = 0; i < p[t].size(); ++i) sum += std::exp(p[t][i]) * (p[t][i] - q[t][i]);
    }
    return sum / static_cast<double>(p.size());
  }

  std::vector<ModelRefinement> told_;
  std::optional<bool> kept_;  ///< whatever is better; none: what is
};

TEST_F(RefinedModel, IsComparedOnWindowsHeldOut) {
  run("better");
  ASSERT_EQ(told_.size(), 1u);
  const ModelRefinement told = told_.front();
  EXPECT_EQ(told.kept, told.refined <= told.merged);
  kept_ = true;
  run("refined");
  options_.calibration->steps = 0;
  run("merged");
  EXPECT_TRUE(told_.empty());
  // Both compute logits in f32, in different orders; here they are of the size of 1.
  const double bound = 1e-5;
  EXPECT_NEAR(told.refined, divergence("refined"), bound);
  EXPECT_NEAR(told.merged, divergence("merged"), bound);
  EXPECT_GT(std::abs(told.merged - told.refined), 10 * bound);
  EXPECT_EQ(tensors("better"), tensors(told.kept ? "refined" : "merged"));
}

TEST_F(RefinedModel, IsMergedAloneWhereRefiningIsGivenUp) {
  kept_ = true;
  run("kept");
  kept_ = false;
  run("given-up");
  ASSERT_EQ(told_.size(), 1u);
  options_.calibration->steps = 0;
  run("merged");
  EXPECT_EQ(tensors("given-up"), tensors("merged"));
  EXPECT_NE(tensors("given-up"), tensors("kept"));
  const auto says_so = [&](const char* out) {
    return std::pair(get_file(dir_ / out / "gqa_recipe.json").find("given up") != std::string::npos,
                     get_file(dir_ / out / "README.md").find("given up") != std::string::npos);
  };
  EXPECT_EQ(says_so("given-up"), std::pair(true, true));
  EXPECT_EQ(says_so("kept"), std::pair(false, false));
  EXPECT_EQ(says_so("merged"), std::pair(false, false));
}

TEST_F(RefinedModel, GoesOnGivenUpFromAnywhere) {
  kept_ = false;
  const int64_t all = calls("out");
  const auto want = folder_content(dir_ / "out");
  options_.output.resume = true;
  int untold = 0;  // runs that went on behind the decision
  for (int64_t stop = 0; stop < all; stop += 3) {
    SCOPED_TRACE(stop);
    fs::remove_all(dir_ / "out");
    int64_t n = 0;
    EXPECT_THROW(run("out",
                     [&](std::string_view, int64_t, int64_t) {
                       if (n++ == stop) throw Error(ErrorKind::interrupted, "stopped");
                     }),
                 Error);
    run("out");
    EXPECT_EQ(folder_content(dir_ / "out"), want);
    untold += told_.empty() ? 1 : 0;
  }
  EXPECT_GT(untold, 3);
}

TEST_F(RefinedModel, HasGroupsTriedAsTheyWillBeRefined) {
  kept_ = true;
  options_.grouping = "learned";
  // What is held out was seen, and errors fall.
  const std::string text = get_file(dir_ / "text.txt");
  test::put_file(dir_ / "text.txt", text + text + text);
  options_.calibration->steps = 96;
  std::vector<LayerRefinement> refined;
  options_.calibration->refined = [&](const LayerRefinement& layer) { refined.push_back(layer); };
  Conversion conversion = plan_convert(dir_ / "in", options_);
  const ConvertPlan plan = conversion.plan();
  conversion.write(dir_ / "out");
  ASSERT_EQ(std::ssize(refined), layers);
  ASSERT_EQ(std::ssize(plan.learned), layers);
  // What comes into the first layer is what came into the original's.
  const LayerGrouping& first = plan.learned.front();
  const auto& tried = *std::ranges::find(first.tried, first.chosen, &GroupingTrial::grouping);
  EXPECT_EQ(tried.groups, plan.groups.front());
  EXPECT_EQ(tried.error, refined.front().after);
  EXPECT_LT(tried.error, refined.front().before);
  const LayerGrouping& last = plan.learned.back();
  const auto& other = *std::ranges::find(last.tried, last.chosen, &GroupingTrial::grouping);
  EXPECT_NE(other.error, refined.back().after);
}

TEST_F(RefinedModel, IsNotComparedWhereNothingChanges) {
  options_.kv_heads = load_config(dir_ / "in").kv_heads.front();
  run("out");
  EXPECT_TRUE(told_.empty());
}

}  // namespace
}  // namespace gqa
