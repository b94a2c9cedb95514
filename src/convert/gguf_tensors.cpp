#include "convert/gguf_tensors.h"

#include <array>
#include <cmath>
#include <utility>

#include "convert/elements.h"
#include "convert/gguf_elements.h"
#include "core/fail.h"
#include "model/layout.h"
#include "model/rope.h"

namespace gqa {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 9> layer_parts{{
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
}};

/// The source's name of a layer's tensor -> that of GGUF.
std::map<std::string, std::string, std::less<>> layer_names(int64_t layer) {
  std::map<std::string, std::string, std::less<>> names;
  for (const auto& [part, name] : layer_parts) {
    for (const char* kind : {"weight", "bias"}) {
      names[layer_tensor(layer, fmt::format("{}.{}", part, kind))] =
          fmt::format("blk.{}.{}.{}", layer, name, kind);
    }
  }
  return names;
}

std::map<std::string, std::string, std::less<>> all_names(int64_t n_layers) {
  std::map<std::string, std::string, std::less<>> names{
      {std::string(embedding_name), "token_embd.weight"},
      {std::string(final_norm_name), "output_norm.weight"},
      {std::string(head_name), "output.weight"}};
  for (int64_t l = 0; l < n_layers; ++l) names.merge(layer_names(l));
  return names;
}

/// llama.cpp turns neighbouring dimensions 2i and 2i + 1 of a head where we turn i and
/// i + head_dim / 2.
std::vector<int64_t> interleaved_rows(int64_t heads, int64_t head_dim) {
  std::vector<int64_t> rows;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      rows.push_back(h * head_dim + i);
      rows.push_back(h * head_dim + head_dim / 2 + i);
    }
  }
  return rows;
}

GgufDType stored_dtype(DType t) {
  return t == DType::f32 ? GgufDType::f32 : t == DType::f16 ? GgufDType::f16 : GgufDType::bf16;
}

GgufOutput output_of(const Tensor& source, std::string name, std::optional<GgufDType> wanted) {
  GgufOutput output{{std::move(name), GgufDType::f32, source.shape}, &source, {}, {}};
  if (source.shape.size() < 2) return output;
  GgufDType dtype = wanted.value_or(stored_dtype(*source.dtype));
  if (dtype == GgufDType::q8_0 && source.shape.back() % q8_0_block != 0) dtype = GgufDType::f16;
  output.tensor.dtype = dtype;
  return output;
}

/// What a plane's frequency is divided by.
GgufOutput rope_factors(const ModelConfig& config) {
  RopeConfig plain;
  plain.theta = config.rope.theta;
  const Rope unscaled(plain, config.head_dim);
  const Rope scaled(config.rope, config.head_dim);
  GgufOutput output{{"rope_freqs.weight", GgufDType::f32, {config.head_dim / 2}}, nullptr, {}, {}};
  for (size_t i = 0; i < scaled.frequencies().size(); ++i) {
    output.values.push_back(unscaled.frequencies()[i] / scaled.frequencies()[i]);
  }
  return output;
}

}  // namespace

bool has_rope_factors(const RopeConfig& rope) {
  using Scaling = RopeConfig::Scaling;
  return rope.scaling == Scaling::llama3 || rope.scaling == Scaling::longrope ||
         (rope.scaling == Scaling::yarn && !rope.truncate);
}

std::vector<GgufOutput> gguf_outputs(const SourceModel& source, std::optional<GgufDType> dtype) {
  const ModelConfig& config = source.config;
  const auto names = all_names(config.n_layers);
  std::vector<GgufOutput> outputs;
  std::map<const Tensor*, size_t> at;
  for (const Tensor* tensor : source.tensors) {
    at[tensor] = outputs.size();
    outputs.push_back(output_of(*tensor, names.at(tensor->name), dtype));
  }
  for (int64_t l = 0; l < config.n_layers; ++l) {
    const AttentionTensors a = attention_tensors(source.checkpoint, l);
    for (const auto& [tensor, heads] :
         {std::pair{a.q, config.q_heads}, std::pair{a.q_bias, config.q_heads},
          std::pair{a.k, config.kv_heads[l]}, std::pair{a.k_bias, config.kv_heads[l]}}) {
      if (tensor != nullptr) outputs[at.at(tensor)].rows = interleaved_rows(heads, config.head_dim);
    }
  }
  if (has_rope_factors(config.rope)) outputs.push_back(rope_factors(config));
  return outputs;
}

std::span<const std::byte> GgufTensorMaker::make(const GgufOutput& output) {
  if (output.source == nullptr) return std::as_bytes(std::span(output.values));
  const Tensor& source = *output.source;
  check_finite(source);
  const int64_t width = source.shape.size() < 2 ? 1 : source.shape.back();
  const int64_t rows = source.elements / width;
  const int64_t bytes = output.tensor.bytes();
  auto* const out = static_cast<std::byte*>(bytes_.reserve(bytes));
  row_.resize(static_cast<size_t>(width));
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t from = (output.rows.empty() ? r : output.rows[r]) * width;
    decode_elements(source.data + from * dtype_bytes(*source.dtype), *source.dtype, width,
                    row_.data());
    const auto bad =
        encode_gguf_row(row_.data(), width, output.tensor.dtype, out + bytes / rows * r);
    if (!bad) continue;
    fail(ErrorKind::bad_data, "{}: tensor `{}`: expected values that {} can hold, got {} at {}",
         source.file->string(), source.name, gguf_dtype_name(output.tensor.dtype), row_[*bad],
         position_text(from + *bad, source.shape));
  }
  return {out, static_cast<size_t>(bytes)};
}

}  // namespace gqa
