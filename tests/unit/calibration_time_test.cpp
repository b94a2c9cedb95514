// What learning from a text takes, counted by hand.
#include "convert/calibration_time.h"

#include <gtest/gtest.h>

#include "regroup/learn_groups.h"
#include "regroup/refine_block.h"

namespace gqa {
namespace {

// Inputs 4, width 4, two query heads of 2, one KV head of 2: q, k and v have 4 * (4 + 2 + 2)
// weights, o has 16, so that projections are 2 * (32 + 16) = 96 operations a token.
constexpr BlockSize block{.inputs = 4, .width = 4, .q = 4, .kv = 2};

TEST(CalibrationTime, CountsABlockByHand) {
  // 3 tokens see 1 + 2 + 3 = 6 keys; each of 2 heads takes 2 * 2 for a score and 2 * 2 for its
  // value.
  EXPECT_EQ(forward_flops(block, 3), 3 * 96 + 6 * 2 * (4 + 4));
  // Gradients of the weights as their products, of what is attended 2 * 16 a token, then four
  // products for each pair and head.
  EXPECT_EQ(backward_flops(block, 3), 3 * 96 + 3 * 32 + 6 * 2 * 4 * 4);
  // Each head averages 4 inputs of 3 x 3 pairs and multiplies 3 of them with themselves.
  EXPECT_EQ(moments_flops(block, 2, 3), 2 * (2 * 9 * 4 + 2 * 3 * 16));
}

ModelConfig tiny_model() {
  ModelConfig config;
  config.n_layers = 2;
  config.width = 4;
  config.mlp_width = 5;
  config.q_heads = 2;
  config.kv_heads = {2, 2};
  config.head_dim = 2;
  config.vocab_size = 7;
  config.max_positions = 16;
  return config;
}

/// On eight_windows(), of whose 8 windows one is held out.
ConvertOptions in_24_steps(int64_t sampled_tokens) {
  ConvertOptions options;
  options.grouping = "neighbour";
  options.calibration = Calibration{
      .text = {}, .tokens = 24, .sampled_tokens = sampled_tokens, .window = 3, .steps = 24};
  return options;
}

CalibrationWindows eight_windows() {
  CalibrationWindows text;
  for (int i = 0; i < 8; ++i) text.add({1, 2, 3});
  return text;
}

TEST(CalibrationTime, CountsAModelByHand) {
  const ModelConfig source = tiny_model();
  EXPECT_EQ(mlp_flops(source, 3), 3 * 2 * 3 * 4 * 5);
  // The head; then, in each of 2 layers, four projections of 16, the MLP, and 6 keys.
  EXPECT_EQ(sampling_flops(source, 6), 2 * 7 * 4 + 2 * (2 * 4 * 16 + 120 + 6 * 2 * (4 + 4)));

  ModelConfig result = source;
  result.kv_heads = {1, 2};  // the second layer does not change
  ConvertOptions options = in_24_steps(10);
  const CalibrationWindows text = eight_windows();
  const CalibrationWork work = count_work(source, result, options, text);
  const BlockSize whole{.inputs = 4, .width = 4, .q = 4, .kv = 4};
  const double before = forward_flops(whole, 3), after = forward_flops(block, 3);
  // Of 8 windows one is held out: checked at the start and 12 times in 24 steps of two windows. All
  // layers are converted twice: refined, and merged alone.
  static_assert(refine_checks == 12);
  const double converted = 8 * (2 * before + after) + 8 * (2 * before + before);
  EXPECT_EQ(work.forward, 2 * converted + 8 * after + 24 * 2 * after + 13 * after);
  // The MLP and its gradient.
  EXPECT_EQ(step_flops(source, block, 3), backward_flops(block, 3) + 2 * mlp_flops(source, 3));
  EXPECT_EQ(work.backward, 24 * 2 * step_flops(source, block, 3));
  const double moments = 2 * 8 * moments_flops(whole, 2, 3);
  EXPECT_EQ(work.moments, 2 * moments);
  // Both layers on both texts, twice; behind the target of the one that changes, and at 13 checks;
  // the head, of two models compared with the original on 3 tokens.
  EXPECT_EQ(work.mlp, (2 * 2 * 8 * 2 + 8 + 13) * mlp_flops(source, 3) + 4 * 3 * 2 * 7 * 4);
  EXPECT_EQ(work.sampling, 10 * sampling_flops(source, 1));

  options.grouping = "similarity";  // one pass more, and two candidates
  const CalibrationWork grouped = count_work(source, result, options, text);
  EXPECT_EQ(grouped.forward - work.forward, 8 * (2 * before + 2 * after + 2 * before));
  EXPECT_EQ(grouped.moments, work.moments + moments);
  EXPECT_EQ(grouped.backward, work.backward);
  options.calibration->steps = 0;
  const CalibrationWork merged = count_work(source, result, options, text);
  EXPECT_EQ(merged.backward, 0);
  EXPECT_EQ(merged.moments, 2 * moments);
}

TEST(CalibrationTime, CountsLearningGroupsByHand) {
  ModelConfig source = tiny_model();
  source.q_heads = 4;
  source.kv_heads = {4, 4, 4};
  source.n_layers = 3;
  ModelConfig result = source;
  result.kv_heads = {2, 4, 1};  // the second layer does not change, the third has one group
  ConvertOptions options = in_24_steps(0);
  const CalibrationWindows text = eight_windows();
  const CalibrationWork fixed = count_work(source, result, options, text);
  options.grouping = "learned";
  const CalibrationWork learned = count_work(source, result, options, text);
  const BlockSize whole{.inputs = 4, .width = 4, .q = 8, .kv = 8};
  const BlockSize halved{.inputs = 4, .width = 4, .q = 8, .kv = 4};
  const double before = forward_flops(whole, 3), after = forward_flops(halved, 3);
  // Three layers studied. In one of them 24 steps of two windows from each of 4 starts, what these
  // find merged, and three groupings refined, as above.
  static_assert(LearnOptions().starts == 4);
  EXPECT_EQ(learned.forward - fixed.forward, 3 * 8 * before + 4 * 24 * 2 * before + 4 * 8 * after +
                                                 3 * (8 * after + 24 * 2 * after + 13 * after));
  EXPECT_EQ(learned.backward - fixed.backward,
            4 * 24 * 2 * backward_flops(whole, 3) + 3 * 24 * 2 * step_flops(source, halved, 3));
  EXPECT_EQ(learned.mlp - fixed.mlp, (3 * 8 + 3 * (8 + 13)) * mlp_flops(source, 3));
}

}  // namespace
}  // namespace gqa
