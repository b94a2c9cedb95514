// A model's shape, as its config.json gives it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "gqa/dtype.h"

namespace gqa {
#pragma GCC visibility push(default)

/// Rotary position embedding (Su et al. 2021), Hugging Face order: plane i pairs dimension i with
/// i + head_dim / 2.
struct RopeConfig {
  enum class Scaling { none, linear, llama3, yarn, longrope };
  double theta = 10000.0;
  Scaling scaling = Scaling::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;   ///< llama3
  double high_freq_factor = 4.0;  ///< llama3
  /// llama3, yarn, longrope: positions of the model before scaling.
  int64_t original_positions = 0;
  double beta_fast = 32.0;  ///< yarn
  double beta_slow = 1.0;   ///< yarn
  bool truncate = true;     ///< yarn: round the correction range to whole planes
  /// yarn: scale of cos and sin; none: 0.1 ln(factor) + 1. load_config() always sets it for yarn,
  /// from `attention_factor`, `mscale` with `mscale_all_dim`, or the factor. longrope: the same;
  /// none: 1; load_config() sets it from `attention_factor`, or as Ding et al. (2024) say.
  std::optional<double> attention_factor = {};
  /// longrope: what each plane's frequency is divided by, [head_dim / 2], for sequences of up to
  /// original_positions tokens and for longer ones.
  std::vector<double> short_factors = {};
  std::vector<double> long_factors = {};
};

/// One layer's KV heads in groups: the heads of a group become one.
using HeadGroups = std::vector<std::vector<int64_t>>;

/// The shape of a decoder of the Llama or Mistral family. All sizes are at least 1.
struct ModelConfig {
  std::string model_type;  ///< "llama" or "mistral"
  int64_t n_layers = 0;
  int64_t width = 0;      ///< hidden_size
  int64_t mlp_width = 0;  ///< intermediate_size
  int64_t q_heads = 0;
  /// One per layer; each a divisor of q_heads, but where the layer has group_sizes.
  std::vector<int64_t> kv_heads;
  /// Unequal groups: per layer, how many query heads each KV head has, in order. Empty, or empty
  /// for a layer: q_heads / kv_heads each.
  std::vector<std::vector<int64_t>> group_sizes = {};
  int64_t head_dim = 0;  ///< of keys and values; independent of the width
  int64_t vocab_size = 0;
  /// The longest sequence. Where longrope has other factors for longer sequences, at most
  /// original_positions: keys in a cache can't be rotated anew once a sequence outgrows it.
  int64_t max_positions = 0;
  int64_t window = 0;  ///< a token sees the last `window` tokens, itself included; 0: all
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  RopeConfig rope;
  bool tied_head = false;       ///< the output head is the embedding
  bool attention_bias = false;  ///< on q, k, v and o
  bool mlp_bias = false;
  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_ids;  ///< from generation_config.json where it has them

  /// Query heads of each KV head of a layer, in order: its group_sizes, or equal ones.
  std::vector<int64_t> sizes_of_groups(int64_t layer) const;
  /// Whether a layer has groups of different sizes.
  bool has_unequal_groups() const;
  /// Whether all layers have the same number of KV heads and all groups the same size: what Hugging
  /// Face's Llama and Mistral can be.
  bool is_uniform() const;
};

/// Reads DIR/config.json (and generation_config.json where present). Checks every field.
/// Throws Error: no_input where the folder or file is missing, bad_data where a field is missing,
/// of the wrong type or out of range, where the family is not supported, or where the weights are
/// quantised (named: FP8, AWQ, GPTQ, ...).
ModelConfig load_config(const std::filesystem::path& dir);

#pragma GCC visibility pop
}  // namespace gqa
