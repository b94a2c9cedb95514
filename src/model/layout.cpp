#include "model/layout.h"

#include <fmt/core.h>

namespace gqa {

std::string layer_tensor(int64_t layer, std::string_view part) {
  return fmt::format("model.layers.{}.{}", layer, part);
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& c) {
  std::vector<ExpectedTensor> tensors;
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    tensors.push_back({std::move(name), std::move(shape)});
  };
  const auto linear = [&](int64_t layer, std::string_view part, int64_t out, int64_t in,
                          bool bias) {
    add(layer_tensor(layer, fmt::format("{}.weight", part)), {out, in});
    if (bias) add(layer_tensor(layer, fmt::format("{}.bias", part)), {out});
  };
  add(std::string(embedding_name), {c.vocab_size, c.width});
  const int64_t q_width = c.q_heads * c.head_dim;
  for (int64_t l = 0; l < c.n_layers; ++l) {
    const int64_t kv_width = c.kv_heads[static_cast<size_t>(l)] * c.head_dim;
    add(layer_tensor(l, "input_layernorm.weight"), {c.width});
    linear(l, "self_attn.q_proj", q_width, c.width, c.attention_bias);
    linear(l, "self_attn.k_proj", kv_width, c.width, c.attention_bias);
    linear(l, "self_attn.v_proj", kv_width, c.width, c.attention_bias);
    linear(l, "self_attn.o_proj", c.width, q_width, c.attention_bias);
    add(layer_tensor(l, "post_attention_layernorm.weight"), {c.width});
    linear(l, "mlp.gate_proj", c.mlp_width, c.width, c.mlp_bias);
    linear(l, "mlp.up_proj", c.mlp_width, c.width, c.mlp_bias);
    linear(l, "mlp.down_proj", c.width, c.mlp_width, c.mlp_bias);
  }
  add(std::string(final_norm_name), {c.width});
  if (!c.tied_head) add(std::string(head_name), {c.vocab_size, c.width});
  return tensors;
}

}  // namespace gqa
