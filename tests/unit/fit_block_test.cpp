// One layer's attention on text: what it computes, its derivatives, and fitting it.
#include <gtest/gtest.h>

#include <cmath>

#include "gqa/model.h"
#include "regroup/fit_block.h"
#include "regroup/layer_study.h"
#include "regroup/stream.h"
#include "support/hidden_groups.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::TempDir;
using test::TinyLlama;

constexpr float epsilon = 1.2e-7f;

/// Windows of odd lengths, the longest over more than one piece of query rows.
CalibrationWindows some_windows(int32_t vocab, std::vector<int64_t> lengths) {
  CalibrationWindows text;
  int32_t next = 5;
  for (const int64_t n : lengths) {
    std::vector<int32_t> window{1};
    while (std::ssize(window) < n) {
      next = static_cast<int32_t>((int64_t{next} * 75 + 74) % 65537);
      window.push_back(next % vocab);
    }
    text.add(std::move(window));
  }
  return text;
}

ModelConfig block_config(int64_t head_dim, int64_t window) {
  ModelConfig config;
  config.head_dim = head_dim;
  config.window = window;
  return config;
}

struct Case {
  CalibrationWindows text;
  Heads heads;
  BlockShape shape;
  Rows inputs;

  Case(uint64_t seed, int64_t mask_window, std::vector<int64_t> q_begin)
      : text(some_windows(19, {37, 1, 150})), shape(block_config(6, mask_window), text, q_begin) {
    std::mt19937_64 random(seed);
    heads = test::random_heads(random, std::ssize(q_begin) - 1, 1, 6, 11, 10);
    heads.q_begin = q_begin;
    heads.q = 0.3 * test::random_matrix(random, q_begin.back() * 6, 11);
    heads.o = test::random_matrix(random, 10, q_begin.back() * 6);
    inputs = test::random_matrix(random, text.tokens(), 11).cast<float>();
  }
};

/// Through all layers, unchanged, as the model itself does it.
TEST(Stream, IsTheModel) {
  for (const TinyLlama& tiny :
       {TinyLlama{.q_heads = 8,
       .kv_heads = 4,
       .attention_bias = true,
       .mlp_bias = true,
       .max_positions = 200},
        TinyLlama{.q_heads = 6, .kv_heads = 2, .window = 9, .max_positions = 200},
        TinyLlama{
            .layer_kv_heads = {3, 4}, .group_sizes = {{3, 1, 4}, {}}, .max_positions = 200}}) {
    const TempDir dir;
    const auto folder = test::write_tiny(dir / "model", tiny);
    const Model model = Model::load(folder);
    const ModelConfig& config = model.config();
    const Weights weights(config, folder, WeightDType::stored, {});
    const Checkpoint checkpoint = Checkpoint::open(folder);
    Context context({.threads = 2});
    const CalibrationWindows text = some_windows(19, {23, 1, 151});
    Stream stream(context, config, weights, text);
    for (int64_t l = 0; l < config.n_layers; ++l) {
      const Heads heads = load_heads(config, l, attention_tensors(checkpoint, l));
      const Rows inputs = stream.attention_inputs(l);
      const BlockShape shape(config, text, heads.q_begin);
      BlockAttention block(context.impl(), shape, inputs);
      block.run(block_weights(heads));
      stream.pass(l, block.output());
    }
    Rows got = stream.hidden();
    for (int64_t r = 0; r < got.rows(); ++r) {  // the final norm
      const double mean = got.row(r).cast<double>().squaredNorm() / static_cast<double>(got.cols());
      for (int64_t c = 0; c < got.cols(); ++c) {
        got(r, c) *= static_cast<float>(1 / std::sqrt(mean + config.rms_norm_eps)) *
                     weights.final_norm[static_cast<size_t>(c)];
      }
    }
    KvCache cache = model.make_cache(KvDType::f32);
    for (size_t w = 0; w < text.windows.size(); ++w) {
      const Model::Step step{cache.create(), text.windows[w]};
      std::vector<float> hidden;
      model.forward(context, cache, std::span(&step, 1), hidden);
      const Eigen::Map<const Rows> want(hidden.data(), std::ssize(text.windows[w]), config.width);
      const Rows rows = got.middleRows(text.begin[w], want.rows());
      // Two layers of some hundred roundings each.
      EXPECT_LT((rows - want).cwiseAbs().maxCoeff(), 1000 * epsilon * want.cwiseAbs().maxCoeff());
    }
  }
}

TEST(BlockAttention, TangentIsTheDerivative) {
  for (const int64_t mask_window : {0, 20}) {
    const Case c(1, mask_window, {0, 2, 3, 7});
    Context context({.threads = 2});
    BlockAttention block(context.impl(), c.shape, c.inputs);
    const BlockWeights at = block_weights(c.heads);
    const Case other(2, mask_window, {0, 2, 3, 7});
    const BlockWeights change = block_weights(other.heads);
    const float h = 1e-2f;
    const auto output = [&](float step) {
      BlockWeights moved = at;
      moved.add(step, change);
      block.run(moved);
      return block.output();
    };
    // Central differences of two step sizes, extrapolated: an error of h^4.
    const Rows wide = (output(h) - output(-h)) / (2 * h);
    const Rows narrow = (output(h / 2) - output(-h / 2)) / h;
    const Rows numeric = (4.0f * narrow - wide) / 3.0f;
    block.run(at);
    const Rows tangent = block.tangent(change);
    EXPECT_LT((numeric - tangent).norm(), 2e-4f * tangent.norm());
  }
}

TEST(BlockAttention, PullbackIsTheTransposedTangent) {
  for (const int64_t mask_window : {0, 20}) {
    const Case c(3, mask_window, {0, 3, 4, 5});
    Context context({.threads = 2});
    BlockAttention block(context.impl(), c.shape, c.inputs);
    block.run(block_weights(c.heads));
    std::mt19937_64 random(4);
    const Rows cotangent = test::random_matrix(random, c.inputs.rows(), 10).cast<float>();
    const BlockWeights gradient = block.pullback(cotangent);
    const BlockWeights zero = BlockWeights::zeros_like(gradient);
    const BlockWeights all = block_weights(Case(5, 0, {0, 3, 4, 5}).heads);
    // For each part alone, so that none hides behind another.
    for (const auto part :
         {&BlockWeights::q, &BlockWeights::k, &BlockWeights::v, &BlockWeights::o}) {
      BlockWeights change = zero;
      change.*part = all.*part;
      const Rows tangent = block.tangent(change);
      const auto want = static_cast<double>(tangent.cwiseProduct(cotangent).sum());
      const double size =
          static_cast<double>(tangent.norm()) * static_cast<double>(cotangent.norm());
      EXPECT_NEAR(gradient.dot(change), want, 100.0 * static_cast<double>(epsilon) * size);
      EXPECT_GT(std::abs(want), 1e-4 * size);
    }
  }
}

TEST(FitBlock, LowersTheErrorAndFindsWhatIsThere) {
  const Case c(6, 0, {0, 2, 4});
  Context context({.threads = 2});
  BlockAttention block(context.impl(), c.shape, c.inputs);
  block.run(block_weights(c.heads));
  const Rows target = block.output();
  Heads start = c.heads;  // near, so that there is one minimum
  const Case other(7, 0, {0, 2, 4});
  start.q += 0.05 * other.heads.q;
  start.k += 0.05 * other.heads.k;
  start.v += 0.05 * other.heads.v;
  const FitResult outputs_only =
      fit_block(context.impl(), c.shape, c.inputs, target, start, {.steps = 0});
  EXPECT_LT(outputs_only.after, outputs_only.before);
  const FitResult fit = fit_block(context.impl(), c.shape, c.inputs, target, start, {.steps = 8});
  EXPECT_EQ(fit.before, outputs_only.before);
  EXPECT_LT(fit.after, 1e-3 * outputs_only.after);
  block.run(block_weights(fit.heads));
  EXPECT_NEAR((block.output() - target).squaredNorm() / target.squaredNorm(), fit.after,
              1e-3 * fit.after + 1e-9);
}

TEST(FitBlock, NeverMakesItWorse) {
  const Case c(8, 0, {0, 1, 2});
  Context context({.threads = 1});
  BlockAttention block(context.impl(), c.shape, c.inputs);
  block.run(block_weights(c.heads));
  const Rows target = block.output();
  const FitResult fit = fit_block(context.impl(), c.shape, c.inputs, target, c.heads, {.steps = 3});
  EXPECT_LE(fit.after, fit.before);
  EXPECT_LT(fit.after, 1e-10);
}

TEST(FitBlock, ThreadsChangeNoBit) {
  const Case c(9, 0, {0, 2, 4});
  const Case other(10, 0, {0, 2, 4});
  std::vector<Heads> results;
  for (const int threads : {1, 2, 5}) {
    Context context({.threads = threads});
    BlockAttention block(context.impl(), c.shape, c.inputs);
    block.run(block_weights(c.heads));
    results.push_back(
        fit_block(context.impl(), c.shape, c.inputs, block.output(), other.heads, {.steps = 2})
            .heads);
  }
  for (const Heads& heads : results) {
    EXPECT_EQ(heads.q, results[0].q);
    EXPECT_EQ(heads.k, results[0].k);
    EXPECT_EQ(heads.v, results[0].v);
    EXPECT_EQ(heads.o, results[0].o);
  }
}

/// Heads in other bases end as the same function.
TEST(FitBlock, DoesNotDependOnTheBasis) {
  const Case c(11, 0, {0, 1, 2, 3, 4});
  Heads changed = c.heads;
  std::mt19937_64 random(12);
  for (int64_t g = 0; g < 4; ++g) test::change_basis(changed, g, random);
  Context context({.threads = 2});
  const HeadGroups groups{{0, 2}, {1, 3}};
  const auto convert = [&](const Heads& heads) {
    const LayerStudy study =
        study_layer(context.impl(), block_config(6, 0), c.text, heads, c.inputs);
    const Heads merged = closed_form(study, groups);
    const BlockShape shape(block_config(6, 0), c.text, merged.q_begin);
    BlockAttention block(context.impl(), shape, c.inputs);
    block.run(block_weights(merged));
    const Rows closed = block.output();
    const FitResult fit = fit_block(context.impl(), shape, c.inputs, study.output, merged, {});
    EXPECT_LT(fit.after, 0.5 * fit.before);
    block.run(block_weights(fit.heads));
    return std::pair<Rows, Rows>(closed, block.output());
  };
  const auto [closed, fitted] = convert(c.heads);
  const auto [other_closed, other_fitted] = convert(changed);
  EXPECT_LT((closed - other_closed).norm(), 1e-4f * closed.norm());
  EXPECT_LT((fitted - other_fitted).norm(), 1e-2f * fitted.norm());
}

}  // namespace
}  // namespace gqa
