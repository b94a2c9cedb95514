// One layer's attention on text: what it computes, and its derivatives.
#include <gtest/gtest.h>

#include <cmath>

#include "gqa/model.h"
#include "regroup/layer_study.h"
#include "regroup/lumps.h"
#include "regroup/stream.h"
#include "support/block_case.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::BlockCase;
using test::some_windows;
using test::TempDir;
using test::TinyLlama;

constexpr float epsilon = 1.2e-7f;

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
      const Rows inputs = stream.attention_inputs(l).map();
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
    const BlockCase c(1, mask_window, {0, 2, 3, 7});
    Context context({.threads = 2});
    BlockAttention block(context.impl(), c.shape, c.inputs);
    const BlockWeights at = block_weights(c.heads);
    const BlockCase other(2, mask_window, {0, 2, 3, 7});
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
    const BlockCase c(3, mask_window, {0, 3, 4, 5});
    Context context({.threads = 2});
    BlockAttention block(context.impl(), c.shape, c.inputs);
    block.run(block_weights(c.heads));
    std::mt19937_64 random(4);
    const Rows cotangent = test::random_matrix(random, c.inputs.rows(), 10).cast<float>();
    const BlockWeights gradient = block.pullback(cotangent);
    const BlockWeights zero = BlockWeights::zeros_like(gradient);
    const BlockWeights all = block_weights(BlockCase(5, 0, {0, 3, 4, 5}).heads);
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

/// Windows see themselves alone, so that it makes no difference with which others they go.
TEST(BlockAttention, LumpsAreTheWhole) {
  std::vector<int64_t> lengths(11, 500);
  lengths[3] = 7;
  const BlockCase c(6, 0, {0, 2, 3}, lengths);
  ASSERT_GT(c.text.tokens(), lump_tokens);
  Context context({.threads = 2});
  const BlockWeights weights = block_weights(c.heads);
  BlockAttention block(context.impl(), c.shape, c.inputs);
  block.run(weights);
  // BLAS rounds rows at the end of a product in another order: sums have 500 terms at most.
  const auto close = [](const auto& got, const auto& want) {
    return (got - want).norm() < 500 * epsilon * want.norm();
  };
  EXPECT_TRUE(
      close(block_output(context.impl(), c.shape, c.inputs, weights).map(), block.output()));
  const LayerStudy study =
      study_layer(context.impl(), test::block_config(6, 0), c.text, c.heads, {{}, c.inputs});
  EXPECT_TRUE(close(study.output.map(), block.output()));
  for (int64_t h = 0; h < 3; ++h) {
    const Matrix whole = block.averaged_moments(h);
    EXPECT_TRUE(close(study.averaged(h), whole));
    for (const int64_t at_a_time : {1, 2}) {
      AveragedMoments some(context.impl(), c.shape, {}, at_a_time * whole.size() * 8);
      EXPECT_TRUE(close(some.of(c.heads, c.inputs, h), whole));
    }
  }
}

}  // namespace
}  // namespace gqa
