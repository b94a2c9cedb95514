// A model whose matrices are quantised when it is loaded.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "gqa/generate.h"
#include "gqa/model.h"
#include "support/quantised.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::RawTensor;
using test::TinyLlama;

/// The tensor in f32 with each block of 64 inputs as int8 gives it back.
RawTensor quantised(const RawTensor& tensor, DType dtype) {
  const int64_t in = tensor.shape[1];
  std::vector<float> values(static_cast<size_t>(in * tensor.shape[0]));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = load_element(tensor.data.data(), dtype, static_cast<int64_t>(i));
  }
  for (int64_t o = 0; o < tensor.shape[0]; ++o) {
    for (int64_t i = 0; i < in; i += 64) {
      test::quantise(KvDType::int8,
                     std::span(values).subspan(o * in + i, std::min<int64_t>(64, in - i)));
    }
  }
  return test::raw_tensor(tensor.name, tensor.shape, values);
}

/// A folder with the weights in f32 that int8 makes of a model's. A tied head comes apart from its
/// embedding table, which stays.
std::filesystem::path write_quantised(const std::filesystem::path& dir, TinyLlama m) {
  std::vector<RawTensor> tensors;
  for (const RawTensor& tensor : test::tiny_tensors(m)) {
    const bool matrix = tensor.shape.size() == 2;
    if (matrix && tensor.name != "model.embed_tokens.weight") {
      tensors.push_back(quantised(tensor, m.dtype));
      continue;
    }
    tensors.push_back(tensor);
    if (!matrix || !m.tied_head) continue;
    tensors.push_back(quantised(tensor, m.dtype));
    tensors.back().name = "lm_head.weight";
  }
  m.tied_head = false;
  std::filesystem::create_directory(dir);
  test::put_file(dir / "config.json", test::tiny_config(m).dump());
  test::write_safetensors(dir / "model.safetensors", tensors);
  return dir;
}

std::vector<float> logits(const Model& model, std::span<const int32_t> tokens) {
  Context context({.threads = 2});
  KvCache cache = model.make_cache(KvDType::f32);
  const Model::Step step{cache.create(), tokens};
  std::vector<float> hidden;
  model.forward(context, cache, std::span(&step, 1), hidden);
  std::vector<float> out(tokens.size() * static_cast<size_t>(model.config().vocab_size));
  model.logits(context, hidden, out);
  return out;
}

TEST(ModelInt8, ComputesWithTheRoundedWeightsBitForBit) {
  const std::vector<int32_t> tokens{3, 1, 4, 1, 5, 9, 2, 6};
  const TinyLlama grouped{.width = 70, .mlp_width = 130, .kv_heads = 2, .tied_head = false};
  const TinyLlama tied{.mlp_width = 65, .dtype = DType::bf16, .shards = 2};
  const TinyLlama biased{
      .kv_heads = 4, .attention_bias = true, .mlp_bias = true, .dtype = DType::f16};
  for (const TinyLlama& m : {grouped, tied, biased}) {
    const test::TempDir dir;
    const auto folder = test::write_tiny(dir / "model", m);
    const Model as_stored = Model::load(folder);
    const Model model = Model::load(folder, WeightDType::int8);
    const Model expected = Model::load(write_quantised(dir / "quantised", m));
    const auto got = logits(model, tokens);
    EXPECT_EQ(got, logits(expected, tokens));
    EXPECT_NE(got, logits(as_stored, tokens));
    EXPECT_EQ(logits(Model::load(folder, WeightDType::stored), tokens), logits(as_stored, tokens));
    EXPECT_EQ(model.default_kv_dtype(), as_stored.default_kv_dtype());
    EXPECT_EQ(model.parameters(), as_stored.parameters());
  }
}

TEST(ModelInt8, ReadsAByteAWeightAndFourBytesABlock) {
  const test::TempDir dir;
  const TinyLlama m{.width = 70, .mlp_width = 130, .kv_heads = 2};
  int64_t bytes = 0;
  for (const RawTensor& tensor : test::tiny_tensors(m)) {
    if (tensor.shape.size() != 2) continue;  // the tied head counts, as the table that it is
    bytes += tensor.shape[0] * (tensor.shape[1] + (tensor.shape[1] + 63) / 64 * 4);
  }
  int64_t quantising = 0;
  const Model model = Model::load(test::write_tiny(dir / "model", m), WeightDType::int8,
                                  [&](std::string_view what, int64_t done, int64_t total) {
                                    if (what != "quantise") return;
                                    EXPECT_GT(done, quantising);
                                    EXPECT_LE(done, total);
                                    quantising = done;
                                  });
  EXPECT_GT(quantising, 0);
  int64_t read = 0;
  for (const auto& memory : model.weights_read()) read += std::ssize(memory);
  EXPECT_EQ(read, bytes);
}

}  // namespace
}  // namespace gqa
