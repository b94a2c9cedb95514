// Conversion finds the groups of a model that hides them.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "gqa/convert.h"
#include "gqa/eval.h"
#include "regroup/heads.h"
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

/// Rows of a matrix as the floats of a tensor, without the bias behind them.
std::vector<float> floats(const Matrix& matrix, int64_t begin, int64_t n) {
  std::vector<float> values;
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    for (int64_t c = begin; c < begin + n; ++c) values.push_back(static_cast<float>(matrix(r, c)));
  }
  return values;
}

enum class Places { kept, shuffled };

/// The folder again, every head of every layer in another basis and maybe another place: the same
/// model.
void hide(const fs::path& from, const fs::path& to, uint64_t seed, Places places) {
  fs::create_directory(to);
  for (const char* name : {"config.json", "tokenizer.json"}) {
    if (fs::exists(from / name)) fs::copy_file(from / name, to / name);
  }
  const ModelConfig config = load_config(from);
  const Checkpoint checkpoint = Checkpoint::open(from);
  std::mt19937_64 random(seed);
  std::map<const Tensor*, std::vector<float>> changed;
  for (int64_t l = 0; l < config.n_layers; ++l) {
    const AttentionTensors t = attention_tensors(checkpoint, l);
    Heads heads = load_heads(config, l, t);
    for (int64_t g = 0; g < heads.kv_heads(); ++g) test::change_basis(heads, g, random);
    std::vector<int64_t> order(static_cast<size_t>(heads.kv_heads()));
    std::iota(order.begin(), order.end(), 0);
    if (places == Places::shuffled) std::shuffle(order.begin(), order.end(), random);
    heads = test::reordered(heads, order);
    changed[t.q] = floats(heads.q, 0, config.width);
    changed[t.k] = floats(heads.k, 0, config.width);
    changed[t.v] = floats(heads.v, 0, config.width);
    changed[t.o] = floats(heads.o, 0, heads.o.cols());
    if (!config.attention_bias) continue;
    changed[t.q_bias] = floats(heads.q, config.width, 1);
    changed[t.k_bias] = floats(heads.k, config.width, 1);
    changed[t.v_bias] = floats(heads.v, config.width, 1);
  }
  std::vector<test::RawTensor> tensors;
  for (const Tensor* tensor : checkpoint.tensors()) {
    std::vector<float> values;
    if (const auto found = changed.find(tensor); found != changed.end()) {
      values = found->second;
    } else {
      for (int64_t i = 0; i < tensor->elements; ++i) {
        values.push_back(load_element(tensor->data, *tensor->dtype, i));
      }
    }
    tensors.push_back(test::raw_tensor(tensor->name, tensor->shape, values, DType::f32));
  }
  test::write_safetensors(to / "model.safetensors", tensors);
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
