// Names and shapes of a checkpoint's tensors, Hugging Face order: what a model family is on disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gqa/config.h"

namespace gqa {

inline constexpr std::string_view embedding_name = "model.embed_tokens.weight";
inline constexpr std::string_view final_norm_name = "model.norm.weight";
inline constexpr std::string_view head_name = "lm_head.weight";

/// layer_tensor(3, "self_attn.q_proj.weight") = "model.layers.3.self_attn.q_proj.weight"
std::string layer_tensor(int64_t layer, std::string_view part);

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

/// Every tensor that a checkpoint of this config must have, in the order of the forward pass. A
/// tied head is not among them; other tensors that files may carry (a copy of the tied head,
/// `rotary_emb.inv_freq`) are not used.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

}  // namespace gqa
