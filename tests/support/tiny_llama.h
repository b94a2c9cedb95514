// Small Llama and Mistral folders with random weights, no two elements alike where the type allows.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/half.h"
#include "io/checkpoint.h"
#include "io/json_value.h"
#include "support/files.h"
#include "support/write_safetensors.h"

namespace gqa::test {

/// What to write; the defaults are odd on purpose.
struct TinyLlama {
  int64_t n_layers = 2;
  int64_t width = 10;
  int64_t mlp_width = 14;
  int64_t q_heads = 8;
  int64_t kv_heads = 8;
  std::vector<int64_t> layer_kv_heads = {};            ///< one per layer, in place of kv_heads
  std::vector<std::vector<int64_t>> group_sizes = {};  ///< as ModelConfig's
  int64_t head_dim = 6;                                ///< q_heads * head_dim is not width
  int64_t vocab_size = 19;
  bool tied_head = true;
  bool attention_bias = false;
  bool mlp_bias = false;
  int64_t window = 0;  ///< above 0: a Mistral model
  int64_t max_positions = 32;
  DType dtype = DType::f32;
  int shards = 1;
  uint32_t seed = 1;
  Json extra = Json::object();         ///< more fields of config.json, put in front
  std::vector<RawTensor> others = {};  ///< more tensors

  int64_t kv_heads_of(int64_t layer) const {
    return layer_kv_heads.empty() ? kv_heads : layer_kv_heads[static_cast<size_t>(layer)];
  }
  /// The KV head that each query head of a layer reads.
  std::vector<int64_t> kv_head_of_each(int64_t layer) const {
    const auto n = kv_heads_of(layer);
    std::vector<int64_t> sizes;
    if (!group_sizes.empty()) sizes = group_sizes[static_cast<size_t>(layer)];
    if (sizes.empty()) sizes.assign(static_cast<size_t>(n), q_heads / n);
    std::vector<int64_t> heads;
    for (size_t g = 0; g < sizes.size(); ++g) {
      for (int64_t i = 0; i < sizes[g]; ++i) heads.push_back(static_cast<int64_t>(g));
    }
    return heads;
  }
};

inline std::vector<float> random_values(int64_t n, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& x : values) x = uniform(random);
  if (n > 8) {  // what a careless mean loses: the sign of zero, subnormals
    values[1] = -0.0f;
    values[3] = 5e-8f;
    values[n - 2] = -0.0f;
  }
  return values;
}

inline std::vector<RawTensor> tiny_tensors(const TinyLlama& m) {
  std::mt19937 random(m.seed);
  std::vector<RawTensor> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    tensors.push_back(raw_tensor(name, std::move(shape), random_values(n, random), m.dtype));
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  };
  const int64_t q = m.q_heads * m.head_dim;
  if (!m.tied_head) add("lm_head.weight", {m.vocab_size, m.width});
  add("model.embed_tokens.weight", {m.vocab_size, m.width});
  for (int64_t l = 0; l < m.n_layers; ++l) {  // in alphabetical order, as files have them
    const std::string layer = fmt::format("model.layers.{}.", l);
    const int64_t kv = m.kv_heads_of(l) * m.head_dim;
    add(layer + "input_layernorm.weight", {m.width});
    linear(layer + "mlp.down_proj", m.width, m.mlp_width, m.mlp_bias);
    linear(layer + "mlp.gate_proj", m.mlp_width, m.width, m.mlp_bias);
    linear(layer + "mlp.up_proj", m.mlp_width, m.width, m.mlp_bias);
    add(layer + "post_attention_layernorm.weight", {m.width});
    linear(layer + "self_attn.k_proj", kv, m.width, m.attention_bias);
    linear(layer + "self_attn.o_proj", m.width, q, m.attention_bias);
    linear(layer + "self_attn.q_proj", q, m.width, m.attention_bias);
    linear(layer + "self_attn.v_proj", kv, m.width, m.attention_bias);
  }
  add("model.norm.weight", {m.width});
  tensors.insert(tensors.end(), m.others.begin(), m.others.end());
  return tensors;
}

inline Json tiny_config(const TinyLlama& m) {
  Json config = m.extra;
  config["model_type"] = m.window > 0 ? "mistral" : "llama";
  if (m.window > 0) config["sliding_window"] = m.window;
  config["num_hidden_layers"] = m.n_layers;
  config["hidden_size"] = m.width;
  config["intermediate_size"] = m.mlp_width;
  config["num_attention_heads"] = m.q_heads;
  config["num_key_value_heads"] = m.kv_heads;
  if (!m.layer_kv_heads.empty()) config["num_key_value_heads"] = m.layer_kv_heads;
  if (!m.group_sizes.empty()) {
    for (const auto& sizes : m.group_sizes) {
      config["gqa_group_sizes"].push_back(sizes.empty() ? Json() : Json(sizes));
    }
  }
  config["head_dim"] = m.head_dim;
  config["vocab_size"] = m.vocab_size;
  config["max_position_embeddings"] = m.max_positions;
  config["rms_norm_eps"] = 1e-5;
  config["tie_word_embeddings"] = m.tied_head;
  config["attention_bias"] = m.attention_bias;
  config["mlp_bias"] = m.mlp_bias;
  config["bos_token_id"] = 1;
  config["eos_token_id"] = 2;
  return config;
}

/// Every third tensor, say, in the third of the shards: a layer is spread over all of them.
inline void write_shards(const std::filesystem::path& dir, const std::vector<RawTensor>& tensors,
                         int n_shards) {
  Json map = Json::object();
  for (int s = 0; s < n_shards; ++s) {
    const std::string file = fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, n_shards);
    std::vector<RawTensor> part;
    for (size_t i = static_cast<size_t>(s); i < tensors.size(); i += n_shards) {
      part.push_back(tensors[i]);
      map[tensors[i].name] = file;
    }
    write_safetensors(dir / file, part);
  }
  put_file(dir / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
}

inline std::filesystem::path write_tiny(const std::filesystem::path& dir, const TinyLlama& m) {
  std::filesystem::create_directory(dir);
  put_file(dir / "config.json", tiny_config(m).dump(2));
  const auto tensors = tiny_tensors(m);
  if (m.shards == 1) {
    write_safetensors(dir / "model.safetensors", tensors);
  } else {
    write_shards(dir, tensors, m.shards);
  }
  return dir;
}

/// A byte-level fall-back tokenizer of 257 ids and no merges.
inline std::string byte_tokenizer() {
  Json vocab = {{"<unk>", 0}};
  for (int b = 0; b < 256; ++b) vocab[fmt::format("<0x{:02X}>", b)] = b + 1;
  Json json;
  json["version"] = "1.0";
  json["added_tokens"] = Json::array();
  json["model"] = {{"type", "BPE"},         {"unk_token", "<unk>"}, {"fuse_unk", true},
                   {"byte_fallback", true}, {"vocab", vocab},       {"merges", Json::array()}};
  json["decoder"] = {
      {"type", "Sequence"},
      {"decoders", Json::array({Json{{"type", "ByteFallback"}}, Json{{"type", "Fuse"}}})}};
  return json.dump();
}

/// A tensor of a folder, read back.
struct Loaded {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
  std::vector<float> values;

  bool operator==(const Loaded& other) const {
    return dtype == other.dtype && shape == other.shape && bytes == other.bytes;
  }
};

inline std::map<std::string, Loaded> load_tensors(const std::filesystem::path& dir) {
  const Checkpoint checkpoint = Checkpoint::open(dir);
  std::map<std::string, Loaded> loaded;
  for (const Tensor* t : checkpoint.tensors()) {
    Loaded& to = loaded[t->name];
    to.dtype = t->dtype_name;
    to.shape = t->shape;
    to.bytes.assign(reinterpret_cast<const char*>(t->data), static_cast<size_t>(t->bytes));
    for (int64_t i = 0; t->dtype && i < t->elements; ++i) {
      to.values.push_back(load_element(t->data, *t->dtype, i));
    }
  }
  return loaded;
}

/// Every file of a folder with its content.
inline std::map<std::string, std::string> folder_content(const std::filesystem::path& dir) {
  std::map<std::string, std::string> content;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    content[entry.path().filename().string()] =
        entry.is_regular_file() ? get_file(entry.path()) : "(no file)";
  }
  return content;
}

}  // namespace gqa::test
