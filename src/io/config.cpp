#include "gqa/config.h"

#include <algorithm>
#include <numeric>

#include "core/checked.h"
#include "core/fail.h"
#include "io/folder.h"
#include "io/group_sizes.h"
#include "io/json_value.h"
#include "io/per_layer_form.h"
#include "io/rope_config.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

constexpr int64_t max_size = int64_t{1} << 31;
constexpr int64_t max_layers = 1 << 16;

/// What differs between families: what transformers takes where config.json is silent, and what its
/// code reads at all.
struct Family {
  std::string_view model_type;
  int64_t max_positions = 0;
  int64_t kv_heads = 0;  ///< 0: as many as query heads
  int64_t window = 0;    ///< 0: the family has none, whatever config.json says
  bool has_biases = false;
};

constexpr Family families[] = {
    {.model_type = "llama", .max_positions = 2048, .has_biases = true},
    {.model_type = "mistral", .max_positions = 131072, .kv_heads = 8, .window = 4096},
};

const Family& read_family(const JsonFields& config) {
  const std::string type = config.string("model_type");
  const auto found = std::ranges::find(families, family_name(type), &Family::model_type);
  if (found != std::end(families)) return *found;
  fail(ErrorKind::bad_data, "{}: model family `{}` is not supported: expected `llama` or `mistral`",
       config.where("model_type"), type);
}

void check_supported(const JsonFields& config) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (!config.has(key)) continue;
    const auto method = config.object(key).maybe_string("quant_method");
    fail(ErrorKind::bad_data, "{}: quantised weights ({}) are not supported", config.where(key),
         method.value_or("no quant_method given"));
  }
  if (config.has("per_layer_config") && !config.get("per_layer_config").empty()) {
    fail(ErrorKind::bad_data, "{}: not supported: expected no such field, got {}",
         config.where("per_layer_config"), json_preview(config.get("per_layer_config")));
  }
  const auto activation = config.maybe_string("hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish") {  // two names of one function
    fail(ErrorKind::bad_data, "{}: activation `{}` is not supported: expected `silu`",
         config.where("hidden_act"), activation);
  }
}

int64_t read_head_dim(const JsonFields& config, int64_t width, int64_t q_heads) {
  const auto given = config.maybe_integer("head_dim", 1, max_size);
  if (!given && width % q_heads != 0) {
    fail(ErrorKind::bad_data,
         "{}: expected a multiple of num_attention_heads ({}), as there is no head_dim, got {}",
         config.where("hidden_size"), q_heads, width);
  }
  const int64_t head_dim = given.value_or(width / q_heads);
  if (head_dim % 2 != 0) {
    fail(ErrorKind::bad_data, "{}: expected an even size, as RoPE pairs dimensions, got {}",
         config.where(given ? "head_dim" : "hidden_size / num_attention_heads"), head_dim);
  }
  return head_dim;
}

std::vector<int64_t> read_kv_heads(const JsonFields& config, const Family& family, int64_t n_layers,
                                   int64_t q_heads) {
  constexpr const char* key = "num_key_value_heads";
  auto kv_heads = config.integers(key, 1, max_size);
  if (!config.has(key)) {
    const bool set = family.kv_heads > 0 && !config.json().contains(key);
    kv_heads.assign(static_cast<size_t>(n_layers), set ? family.kv_heads : q_heads);
  } else if (!config.get(key).is_array()) {
    kv_heads.assign(static_cast<size_t>(n_layers), kv_heads.front());
  } else if (std::ssize(kv_heads) != n_layers) {
    fail(ErrorKind::bad_data, "{}: expected an entry for each of {} layers, got {} entries",
         config.where(key), n_layers, kv_heads.size());
  }
  return kv_heads;
}

/// Absent: the family's. null: none.
int64_t read_window(const JsonFields& config, const Family& family) {
  if (family.window == 0) return 0;
  if (config.has("layer_types")) {  // transformers takes it for another family then
    fail(ErrorKind::bad_data,
         "{}: layers of different kinds are not supported: expected no such field",
         config.where("layer_types"));
  }
  constexpr const char* key = "sliding_window";
  if (!config.json().contains(key)) return family.window;
  return config.maybe_integer(key, 1, max_size).value_or(0);
}

/// Every size that follows from the config fits in 63 bits, the bytes of all weights among them.
void check_total(const JsonFields& config, const ModelConfig& c) {
  std::optional<int64_t> total = 0;
  const auto add = [&](int64_t rows, int64_t columns, int64_t times) {
    auto size = checked_mul(rows, columns);
    if (size) size = checked_mul(*size, times);
    total = total && size ? checked_add(*total, *size) : std::nullopt;
  };
  const int64_t kv_total = std::accumulate(c.kv_heads.begin(), c.kv_heads.end(), int64_t{0});
  const auto q_width = checked_mul(c.q_heads, c.head_dim);
  const auto kv_width = checked_mul(kv_total, c.head_dim);
  if (q_width && kv_width) {
    constexpr int64_t f32_bytes = 4;
    add(*q_width, c.width, 2 * f32_bytes * c.n_layers);
    add(*kv_width, c.width, 2 * f32_bytes);
    add(c.mlp_width, c.width, 3 * f32_bytes * c.n_layers);
    add(c.vocab_size, c.width, 2 * f32_bytes);
  }
  if (q_width && *q_width <= max_size && kv_width && total) return;
  fail(ErrorKind::bad_data,
       "{}: the model's size overflows: {} layers, hidden_size {}, intermediate_size {}, "
       "num_attention_heads {}, head_dim {}, vocab_size {}",
       config.file().string(), c.n_layers, c.width, c.mlp_width, c.q_heads, c.head_dim,
       c.vocab_size);
}

/// Absent: what transformers takes then. null: none.
std::vector<int32_t> read_token_ids(const JsonFields& config, const char* key, int64_t absent,
                                    int64_t vocab_size) {
  if (!config.json().contains(key) && absent >= vocab_size) return {};
  const auto ids = config.json().contains(key) ? config.integers(key, 0, vocab_size - 1)
                                               : std::vector<int64_t>{absent};
  std::vector<int32_t> narrow;
  for (const int64_t id : ids) narrow.push_back(static_cast<int32_t>(id));
  return narrow;
}

void read_special_tokens(const JsonFields& config, const fs::path& dir, ModelConfig& c) {
  const auto bos = read_token_ids(config, "bos_token_id", 1, c.vocab_size);
  if (bos.size() > 1) {
    fail(ErrorKind::bad_data, "{}: expected one id, got {}", config.where("bos_token_id"),
         bos.size());
  }
  if (!bos.empty()) c.bos_token_id = bos.front();
  c.eos_token_ids = read_token_ids(config, "eos_token_id", 2, c.vocab_size);
  const fs::path generation_file = dir / "generation_config.json";
  std::error_code ignored;
  if (!fs::exists(generation_file, ignored)) return;
  const Json json = read_json(generation_file);
  const JsonFields generation(json, generation_file);
  if (!generation.has("eos_token_id")) return;
  c.eos_token_ids = read_token_ids(generation, "eos_token_id", 0, c.vocab_size);
}

ModelConfig read_config(const JsonFields& config) {
  const Family& family = read_family(config);
  check_supported(config);
  ModelConfig c;
  c.model_type = family.model_type;
  c.n_layers = config.integer("num_hidden_layers", 1, max_layers);
  c.width = config.integer("hidden_size", 1, max_size);
  c.mlp_width = config.integer("intermediate_size", 1, max_size);
  c.q_heads = config.integer("num_attention_heads", 1, max_size);
  c.vocab_size = config.integer("vocab_size", 1, max_size);
  c.head_dim = read_head_dim(config, c.width, c.q_heads);
  c.kv_heads = read_kv_heads(config, family, c.n_layers, c.q_heads);
  c.group_sizes = read_group_sizes(config, c);
  check_total(config, c);
  c.max_positions =
      config.maybe_integer("max_position_embeddings", 1, max_size).value_or(family.max_positions);
  c.window = read_window(config, family);
  c.rms_norm_eps = config.maybe_number("rms_norm_eps", 0.0, 1.0).value_or(c.rms_norm_eps);
  c.initializer_range =
      config.maybe_number("initializer_range", 0.0, 1.0).value_or(c.initializer_range);
  c.rope = read_rope(config, c.max_positions, c.head_dim);
  if (c.rope.short_factors != c.rope.long_factors) {
    c.max_positions = std::min(c.max_positions, c.rope.original_positions);
  }
  c.tied_head = config.boolean("tie_word_embeddings", false);
  if (!family.has_biases) return c;
  c.attention_bias = config.boolean("attention_bias", false);
  c.mlp_bias = config.boolean("mlp_bias", false);
  return c;
}

}  // namespace

ModelConfig load_config(const fs::path& dir) {
  const fs::path file = dir / "config.json";
  check_model_folder(dir);
  const Json json = read_json(file);
  const JsonFields config(json, file);
  ModelConfig c = read_config(config);
  read_special_tokens(config, dir, c);
  return c;
}

}  // namespace gqa
