// What a GGUF file holds, read by other code than ours that writes it.

#include "gqa/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "convert/gguf_elements.h"
#include "convert/gguf_metadata.h"
#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/read_gguf.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::GgufReader;
using test::TempDir;
using test::TinyLlama;
using testing::ElementsAre;
using testing::HasSubstr;

const TinyLlama whole_blocks = {.width = 64, .mlp_width = 96, .q_heads = 4, .kv_heads = 2};

class Gguf : public testing::Test {
 protected:
  GgufReader exported(const TinyLlama& model, const GgufOptions& options = {}) {
    test::write_tiny(dir_ / "in", model);
    source_ = test::load_tensors(dir_ / "in");
    plan_ = plan_gguf(dir_ / "in", options);
    export_gguf(dir_ / "in", dir_ / "out.gguf", options);
    const std::string bytes = test::get_file(dir_ / "out.gguf");
    EXPECT_EQ(std::ssize(bytes), plan_.output_bytes);
    return GgufReader(bytes);
  }
  const std::vector<float>& source(const std::string& name) const {
    return source_.at(name).values;
  }
  /// Row `r` of q or k is this row of the source: the dimensions of a plane lie side by side.
  static size_t source_row(size_t r, size_t head_dim) {
    const size_t h = r / head_dim, d = r % head_dim;
    return h * head_dim + d / 2 + (d % 2) * head_dim / 2;
  }
  static std::vector<float> interleaved(const std::vector<float>& values, size_t rows,
                                        size_t head_dim) {
    const size_t width = values.size() / rows;
    std::vector<float> result;
    for (size_t r = 0; r < rows; ++r) {
      const auto from = values.begin() + source_row(r, head_dim) * width;
      result.insert(result.end(), from, from + width);
    }
    return result;
  }

  const TempDir dir_;
  std::map<std::string, test::Loaded> source_;
  GgufPlan plan_;
};

TEST_F(Gguf, EveryTensorOfTheSource) {
  const TinyLlama model = {
      .kv_heads = 2, .tied_head = false, .attention_bias = true, .mlp_bias = true};
  const GgufReader file = exported(model);
  EXPECT_EQ(file.version, 3u);
  const std::map<std::string, std::string> names = {
      {"token_embd", "model.embed_tokens"},
      {"output_norm", "model.norm"},
      {"output", "lm_head"},
      {"blk.1.attn_norm", "model.layers.1.input_layernorm"},
      {"blk.1.attn_v", "model.layers.1.self_attn.v_proj"},
      {"blk.1.attn_output", "model.layers.1.self_attn.o_proj"},
      {"blk.1.ffn_norm", "model.layers.1.post_attention_layernorm"},
      {"blk.0.ffn_gate", "model.layers.0.mlp.gate_proj"},
      {"blk.0.ffn_up", "model.layers.0.mlp.up_proj"},
      {"blk.0.ffn_down", "model.layers.0.mlp.down_proj"}};
  for (const auto& [name, from] : names) {
    for (const char* kind : {".weight", ".bias"}) {
      if (source_.contains(from + kind)) {
        EXPECT_EQ(file.tensors.at(name + kind).values, source(from + kind)) << name << kind;
      }
    }
  }
  EXPECT_EQ(file.tensors.size(), source_.size());
  EXPECT_EQ(file.order.size(), source_.size());
  EXPECT_THAT(file.tensors.at("blk.0.ffn_down.weight").dims, ElementsAre(14, 10));
  EXPECT_THAT(file.tensors.at("blk.0.ffn_down.bias").dims, ElementsAre(10));
}

TEST_F(Gguf, QueriesAndKeysAreInterleaved) {
  const GgufReader file = exported({.kv_heads = 2, .attention_bias = true});
  for (const char* kind : {".weight", ".bias"}) {
    for (const std::string layer : {"0", "1"}) {
      const std::string ours = "model.layers." + layer + ".self_attn.";
      EXPECT_EQ(file.tensors.at("blk." + layer + ".attn_q" + kind).values,
                interleaved(source(ours + "q_proj" + kind), 48, 6));
      EXPECT_EQ(file.tensors.at("blk." + layer + ".attn_k" + kind).values,
                interleaved(source(ours + "k_proj" + kind), 12, 6));
    }
  }
}

TEST_F(Gguf, DataIsAligned) {
  const GgufReader file = exported({});
  EXPECT_EQ(file.data_begin % 32, 0u);
  uint64_t end = file.data_begin;
  for (const std::string& name : file.order) {
    const test::ReadTensor& t = file.tensors.at(name);
    EXPECT_EQ(t.offset, (end + 31) / 32 * 32) << name;
    end = t.offset + t.data.size();
  }
}

TEST_F(Gguf, Metadata) {
  const GgufReader file = exported({.kv_heads = 2, .vocab_size = 21});
  EXPECT_EQ(file.get<std::string>("general.architecture"), "llama");
  EXPECT_EQ(file.get<std::string>("general.name"), "in");
  EXPECT_EQ(file.number("general.file_type"), 0);
  EXPECT_EQ(file.number("llama.vocab_size"), 21);
  EXPECT_EQ(file.number("llama.context_length"), 32);
  EXPECT_EQ(file.number("llama.embedding_length"), 10);
  EXPECT_EQ(file.number("llama.feed_forward_length"), 14);
  EXPECT_EQ(file.number("llama.block_count"), 2);
  EXPECT_EQ(file.number("llama.attention.head_count"), 8);
  EXPECT_EQ(file.number("llama.attention.head_count_kv"), 2);
  EXPECT_EQ(file.number("llama.attention.key_length"), 6);
  EXPECT_EQ(file.number("llama.attention.value_length"), 6);
  EXPECT_EQ(file.get<float>("llama.attention.layer_norm_rms_epsilon"), 1e-5f);
  EXPECT_EQ(file.number("llama.rope.dimension_count"), 6);
  EXPECT_EQ(file.get<float>("llama.rope.freq_base"), 10000.0f);
  EXPECT_FALSE(file.metadata.contains("llama.rope.scaling.type"));
  EXPECT_EQ(file.get<std::string>("tokenizer.ggml.model"), "no_vocab");
  EXPECT_EQ(plan_.tokenizer, "no_vocab");
  EXPECT_THAT(plan_.notes, ElementsAre(HasSubstr("no tokenizer.json")));
}

TEST_F(Gguf, LayersWithHeadsOfTheirOwn) {
  TinyLlama model = {.kv_heads = 4};
  test::write_tiny(dir_ / "model", model);
  Json config = test::tiny_config(model);
  config["num_key_value_heads"] = {4, 2};
  test::put_file(dir_ / "model" / "config.json", config.dump());
  auto tensors = test::tiny_tensors(model);
  for (auto& t : tensors) {
    const bool second = t.name.starts_with("model.layers.1.self_attn.");
    if (!second || (t.name.find("k_proj") == t.name.npos && t.name.find("v_proj") == t.name.npos)) {
      continue;
    }
    t.shape[0] /= 2;
    t.data.resize(t.data.size() / 2);
  }
  test::write_safetensors(dir_ / "model" / "model.safetensors", tensors);
  export_gguf(dir_ / "model", dir_ / "out.gguf", {});
  const GgufReader file(test::get_file(dir_ / "out.gguf"));
  EXPECT_EQ(file.get<std::string>("general.architecture"), "deci");
  EXPECT_THAT(file.get<std::vector<int64_t>>("deci.attention.head_count_kv"), ElementsAre(4, 2));
  EXPECT_THAT(file.get<std::vector<int64_t>>("deci.attention.head_count"), ElementsAre(8, 8));
  EXPECT_THAT(file.get<std::vector<int64_t>>("deci.feed_forward_length"), ElementsAre(14, 14));
  EXPECT_THAT(file.tensors.at("blk.1.attn_k.weight").dims, ElementsAre(10, 12));
  const auto loaded = test::load_tensors(dir_ / "model");
  EXPECT_EQ(file.tensors.at("blk.1.attn_k.weight").values,
            interleaved(loaded.at("model.layers.1.self_attn.k_proj.weight").values, 12, 6));
}

TEST_F(Gguf, UnequalGroupsAreRefused) {
  ModelConfig config;
  config.q_heads = 8;
  config.kv_heads = {4, 3};
  test::expect_error(ErrorKind::bad_data, {"layer 1", "8", "3", "unequal"},
                     [&] { gguf_architecture(config); });
}

TEST_F(Gguf, SixteenBits) {
  for (const auto& [dtype, type, rounded] :
       {std::tuple{GgufDType::f16, 1u, DType::f16}, {GgufDType::bf16, 30u, DType::bf16}}) {
    const TempDir dir;
    test::write_tiny(dir / "in", {});
    export_gguf(dir / "in", dir / "out", {.dtype = dtype});
    const GgufReader file(test::get_file(dir / "out"));
    EXPECT_EQ(file.number("general.file_type"), type == 1 ? 1 : 32);
    for (const auto& [name, t] : file.tensors) EXPECT_EQ(t.type, t.dims.size() < 2 ? 0u : type);
    const auto from = test::load_tensors(dir / "in").at("model.embed_tokens.weight").values;
    const auto& values = file.tensors.at("token_embd.weight").values;
    for (size_t i = 0; i < from.size(); ++i) {
      float want = 0;
      store_element(&want, rounded, 0, from[i]);
      EXPECT_EQ(values[i], load_element(&want, rounded, 0));
    }
  }
}

TEST_F(Gguf, MatricesKeepTheirTypeUnlessTold) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const TempDir dir;
    test::write_tiny(dir / "in", {.dtype = dtype});
    export_gguf(dir / "in", dir / "out", {});
    const GgufReader file(test::get_file(dir / "out"));
    const uint32_t type = dtype == DType::f32 ? 0 : dtype == DType::f16 ? 1 : 30;
    EXPECT_EQ(file.tensors.at("blk.0.ffn_up.weight").type, type);
    EXPECT_EQ(file.tensors.at("blk.0.ffn_norm.weight").type, 0u);
    EXPECT_EQ(
        file.tensors.at("blk.0.ffn_norm.weight").values,
        test::load_tensors(dir / "in").at("model.layers.0.post_attention_layernorm.weight").values);
  }
}

/// ggml's reference, said once more: a block's largest magnitude becomes 127.
std::string q8_0_block(const float* x) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  const float scale = largest / 127;
  std::string block(34, '\0');
  store_element(block.data(), DType::f16, 0, scale);
  for (int i = 0; i < 32 && scale > 0; ++i) {
    block[2 + i] = static_cast<char>(static_cast<int>(std::roundf(x[i] * (1 / scale))));
  }
  return block;
}

TEST_F(Gguf, Q8_0) {
  const GgufReader file = exported(whole_blocks, {.dtype = GgufDType::q8_0});
  EXPECT_EQ(file.number("general.file_type"), 7);
  EXPECT_EQ(file.number("general.quantization_version"), 2);
  const std::vector<float> q = interleaved(source("model.layers.1.self_attn.q_proj.weight"), 24, 6);
  for (const auto& [name, from] : {std::pair{"blk.1.attn_q.weight", &q},
                                   {"token_embd.weight", &source("model.embed_tokens.weight")}}) {
    const test::ReadTensor& t = file.tensors.at(name);
    ASSERT_EQ(t.type, 8u) << name;
    std::string want;
    for (size_t i = 0; i < from->size(); i += 32) want += q8_0_block(from->data() + i);
    EXPECT_EQ(t.data, want) << name;
    for (size_t i = 0; i < from->size(); ++i) {
      // Weights are within 1: half a step, and the scale's rounding to 11 bits.
      EXPECT_NEAR(t.values[i], (*from)[i], 0.5 / 127 + 0x1p-11 + 1e-6);
    }
  }
}

TEST_F(Gguf, TiesOfQ8_0GoAwayFromZero) {
  std::vector<float> x(32, 0.0f);
  const std::vector<float> first = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 126.5f};
  std::ranges::copy(first, x.begin());
  std::vector<std::byte> block(34);
  EXPECT_FALSE(encode_gguf_row(x.data(), 32, GgufDType::q8_0, block.data()));
  const std::vector<int> want = {127, 1, 2, 3, -1, -2, 127, 0};
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(static_cast<int8_t>(block[2 + i]), want[i]) << x[i];
  }
}

TEST_F(Gguf, BlocksTooSmallForAScaleAreZeros) {
  const std::vector<float> x(32, 1e-41f);
  std::vector<std::byte> block(34, std::byte{1});
  EXPECT_FALSE(encode_gguf_row(x.data(), 32, GgufDType::q8_0, block.data()));
  EXPECT_EQ(block, std::vector<std::byte>(34));
}

TEST_F(Gguf, RowsThatAreNoWholeBlocksAreF16) {
  const GgufReader file = exported(whole_blocks, {.dtype = GgufDType::q8_0});
  EXPECT_EQ(file.tensors.at("blk.0.attn_output.weight").type, 1u);  // rows of 4 heads of 6
  EXPECT_EQ(file.tensors.at("blk.0.ffn_down.weight").type, 8u);
  EXPECT_EQ(file.tensors.at("blk.0.attn_norm.weight").type, 0u);
  EXPECT_THAT(plan_.notes, testing::Contains(HasSubstr("2 of 20 tensors are f16")));
}

TEST_F(Gguf, ZerosHaveBlocks) {
  TinyLlama model = whole_blocks;
  test::write_tiny(dir_ / "in", model);
  auto tensors = test::tiny_tensors(model);
  for (auto& t : tensors) {
    if (t.name == "model.embed_tokens.weight") std::fill_n(t.data.begin(), 128, '\0');
  }
  test::write_safetensors(dir_ / "in" / "model.safetensors", tensors);
  export_gguf(dir_ / "in", dir_ / "out", {.dtype = GgufDType::q8_0});
  const GgufReader file(test::get_file(dir_ / "out"));
  EXPECT_EQ(file.tensors.at("token_embd.weight").data.substr(0, 34), std::string(34, '\0'));
}

}  // namespace
}  // namespace gqa
