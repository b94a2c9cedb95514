#include "convert/gguf_metadata.h"

#include <algorithm>
#include <cmath>

#include "convert/gguf_tensors.h"
#include "core/fail.h"
#include "core/text.h"
#include "io/json_value.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// As llama.cpp numbers the types of whole files.
int64_t file_type(GgufDType t) {
  switch (t) {
    case GgufDType::f32:
      return 0;
    case GgufDType::f16:
      return 1;
    case GgufDType::q8_0:
      return 7;
    case GgufDType::bf16:
      break;
  }
  return 32;
}

void add_sizes(GgufMetadata& metadata, const std::string& arch, const ModelConfig& c,
               std::vector<std::string>& notes) {
  int64_t context = c.max_positions;
  if (c.window > 0 && c.window < context) {
    context = c.window;
    notes.push_back(
        fmt::format("llama.cpp has no sliding window for this model: the context length is written "
                    "as {}, the window, up to which it computes the same",
                    c.window));
  }
  const auto add = [&](const char* key, int64_t value) { metadata.add_u32(arch + key, value); };
  add(".vocab_size", c.vocab_size);
  add(".context_length", context);
  add(".embedding_length", c.width);
  add(".block_count", c.n_layers);
  add(".attention.key_length", c.head_dim);
  add(".attention.value_length", c.head_dim);
  metadata.add_f32(arch + ".attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  if (arch == "llama") {
    add(".feed_forward_length", c.mlp_width);
    add(".attention.head_count", c.q_heads);
    add(".attention.head_count_kv", c.kv_heads[0]);
    return;
  }
  const auto n = static_cast<size_t>(c.n_layers);
  metadata.add_u32s(arch + ".feed_forward_length", std::vector<int64_t>(n, c.mlp_width));
  metadata.add_u32s(arch + ".attention.head_count", std::vector<int64_t>(n, c.q_heads));
  metadata.add_u32s(arch + ".attention.head_count_kv", c.kv_heads);
}

void add_rope(GgufMetadata& metadata, const std::string& arch, const ModelConfig& c) {
  using Scaling = RopeConfig::Scaling;
  const RopeConfig& rope = c.rope;
  metadata.add_u32(arch + ".rope.dimension_count", c.head_dim);
  metadata.add_f32(arch + ".rope.freq_base", rope.theta);
  const bool factors = has_rope_factors(rope);
  const bool yarn = rope.scaling == Scaling::yarn;
  const bool longrope = rope.scaling == Scaling::longrope;
  if (!factors && rope.scaling != Scaling::none) {
    metadata.add_string(arch + ".rope.scaling.type", yarn ? "yarn" : "linear");
    metadata.add_f32(arch + ".rope.scaling.factor", rope.factor);
  }
  if (!yarn && !longrope) return;
  double scale = rope.attention_factor.value_or(1.0);
  if (!factors) {
    metadata.add_u32(arch + ".rope.scaling.original_context_length", rope.original_positions);
    metadata.add_f32(arch + ".rope.scaling.yarn_beta_fast", rope.beta_fast);
    metadata.add_f32(arch + ".rope.scaling.yarn_beta_slow", rope.beta_slow);
    scale /= 0.1 * std::log(rope.factor) + 1.0;  // which llama.cpp multiplies by
  }
  metadata.add_f32(arch + ".rope.scaling.attn_factor", scale);
}

bool has_file(const fs::path& file) {
  std::error_code ignored;
  return fs::is_regular_file(file, ignored);
}

/// tokenizer_config.json; null where there is none.
Json tokenizer_config(const fs::path& dir) {
  const fs::path file = dir / "tokenizer_config.json";
  return has_file(file) ? read_json(file) : Json();
}

/// As transformers: chat_template.jinja goes first; of several templates in tokenizer_config.json,
/// it is the one named `default`.
std::optional<std::string> chat_template(const fs::path& dir, const Json& config) {
  const fs::path file = dir / "chat_template.jinja";
  if (has_file(file)) return read_text(file);
  constexpr const char* key = "chat_template";
  if (!config.is_object() || !config.contains(key)) return std::nullopt;
  const Json& found = config[key];
  if (found.is_string()) return found.get<std::string>();
  if (!found.is_array()) return std::nullopt;
  for (const Json& entry : found) {
    const JsonFields fields(entry, dir / "tokenizer_config.json", key);
    if (fields.string("name") == "default") return fields.string("template");
  }
  return std::nullopt;
}

void add_end_tokens(GgufMetadata& metadata, const ModelConfig& c, std::vector<std::string>& notes) {
  constexpr const char* keys[] = {"eos", "eot", "eom"};  // generation ends at any of them
  const std::vector<int32_t>& ids = c.eos_token_ids;
  for (size_t i = 0; i < std::min(ids.size(), std::size(keys)); ++i) {
    metadata.add_u32(fmt::format("tokenizer.ggml.{}_token_id", keys[i]), ids[i]);
  }
  if (ids.size() > std::size(keys)) {
    notes.push_back(fmt::format("GGUF has room for {} end tokens: {} more are left out",
                                std::size(keys), ids.size() - std::size(keys)));
  }
  if (ids.empty()) {
    notes.emplace_back("the model has no end token, and GGUF can't say so: llama.cpp takes one");
  }
}

void add_text(GgufMetadata& metadata, const SourceModel& source, const GgufTokenizer& tokenizer,
              std::vector<std::string>& notes) {
  add_tokenizer(metadata, tokenizer);
  notes.insert(notes.end(), tokenizer.notes.begin(), tokenizer.notes.end());
  const ModelConfig& c = source.config;
  const Json config = tokenizer_config(source.dir);
  const fs::path file = source.dir / "tokenizer_config.json";
  const auto told = [&](const char* key, bool otherwise) {
    return config.is_object() ? JsonFields(config, file).boolean(key, otherwise) : otherwise;
  };
  const auto bos = c.bos_token_id ? c.bos_token_id : tokenizer.first;
  if (bos) metadata.add_u32("tokenizer.ggml.bos_token_id", *bos);
  const bool add_bos = tokenizer.adds_first.value_or(told("add_bos_token", bos.has_value()));
  metadata.add_bool("tokenizer.ggml.add_bos_token", add_bos && bos.has_value());
  add_end_tokens(metadata, c, notes);
  const bool add_eos = tokenizer.adds_last.value_or(told("add_eos_token", false));
  metadata.add_bool("tokenizer.ggml.add_eos_token", add_eos && !c.eos_token_ids.empty());
  if (const auto text = chat_template(source.dir, config)) {
    metadata.add_string("tokenizer.chat_template", *text);
  }
}

}  // namespace

std::string gguf_architecture(const ModelConfig& c) {
  for (size_t l = 0; l < c.kv_heads.size(); ++l) {
    if (c.q_heads % c.kv_heads[l] == 0) continue;
    fail(ErrorKind::bad_data,
         "layer {}: GGUF can't express groups of unequal sizes: expected KV heads that divide the "
         "{} "
         "query heads, got {}",
         l, c.q_heads, c.kv_heads[l]);
  }
  const bool same = std::ranges::count(c.kv_heads, c.kv_heads[0]) == std::ssize(c.kv_heads);
  return same ? "llama" : "deci";
}

GgufMetadata gguf_metadata(const SourceModel& source, GgufDType main_dtype,
                           const std::optional<GgufTokenizer>& tokenizer,
                           std::vector<std::string>& notes) {
  const std::string arch = gguf_architecture(source.config);
  GgufMetadata metadata;
  metadata.add_string("general.architecture", arch);
  metadata.add_string("general.type", "model");
  metadata.add_string("general.name", source.name);
  metadata.add_u32("general.file_type", file_type(main_dtype));
  if (main_dtype == GgufDType::q8_0) metadata.add_u32("general.quantization_version", 2);
  add_sizes(metadata, arch, source.config, notes);
  add_rope(metadata, arch, source.config);
  if (tokenizer) {
    add_text(metadata, source, *tokenizer, notes);
  } else {
    metadata.add_string("tokenizer.ggml.model", "no_vocab");
    notes.emplace_back("no tokenizer.json: the file has no tokenizer (`no_vocab`)");
  }
  return metadata;
}

}  // namespace gqa
