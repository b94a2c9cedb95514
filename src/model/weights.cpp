#include "model/weights.h"

#include <cstring>

#include "core/half.h"
#include "kernels/context.h"
#include "model/layout.h"

namespace gqa {
namespace {

std::vector<float> vector_of(const Checkpoint& checkpoint, const std::string& name, int64_t n) {
  const Tensor& tensor = checkpoint.at(name, {n});
  std::vector<float> values(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    values[static_cast<size_t>(i)] = load_element(tensor.data, *tensor.dtype, i);
  }
  return values;
}

/// Checks names and shapes of all tensors, then that every weight is finite.
int64_t check_tensors(const Checkpoint& checkpoint, const ModelConfig& config,
                      const Progress& progress) {
  const auto expected = expected_tensors(config);
  int64_t total = 0;
  int64_t parameters = 0;
  for (const auto& [name, shape] : expected) {
    const Tensor& tensor = checkpoint.at(name, shape);
    total += tensor.bytes;
    parameters += tensor.elements;
  }
  int64_t done = 0;
  for (const auto& tensor : expected) {
    const Tensor& found = checkpoint.at(tensor.name);
    check_finite(found);
    done += found.bytes;
    if (progress) progress("load", done, total);
  }
  return parameters;
}

/// What each forward pass multiplies by.
template <class L, class W>
std::vector<L*> matrices_of(W& weights) {
  std::vector<L*> all;
  for (auto& w : weights.layers) {
    for (L* matrix : {&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.down}) all.push_back(matrix);
  }
  all.push_back(&weights.head);
  return all;
}

}  // namespace

Weights::Weights(const ModelConfig& c, const std::filesystem::path& dir, WeightDType weight_dtype,
                 const Progress& progress)
    : checkpoint_(Checkpoint::open(dir)) {
  parameters = check_tensors(checkpoint_, c, progress);
  embedding = matrix(std::string(embedding_name), c.vocab_size, c.width);
  const int64_t q_width = c.q_heads * c.head_dim;
  for (int64_t l = 0; l < c.n_layers; ++l) {
    const int64_t kv_width = c.kv_heads[static_cast<size_t>(l)] * c.head_dim;
    LayerWeights w;
    w.attention_norm = vector_of(checkpoint_, layer_tensor(l, "input_layernorm.weight"), c.width);
    w.q = linear(l, "self_attn.q_proj", q_width, c.width, c.attention_bias);
    w.k = linear(l, "self_attn.k_proj", kv_width, c.width, c.attention_bias);
    w.v = linear(l, "self_attn.v_proj", kv_width, c.width, c.attention_bias);
    w.o = linear(l, "self_attn.o_proj", c.width, q_width, c.attention_bias);
    w.mlp_norm =
        vector_of(checkpoint_, layer_tensor(l, "post_attention_layernorm.weight"), c.width);
    w.gate = linear(l, "mlp.gate_proj", c.mlp_width, c.width, c.mlp_bias);
    w.up = linear(l, "mlp.up_proj", c.mlp_width, c.width, c.mlp_bias);
    w.down = linear(l, "mlp.down_proj", c.width, c.mlp_width, c.mlp_bias);
    layers.push_back(std::move(w));
  }
  final_norm = vector_of(checkpoint_, std::string(final_norm_name), c.width);
  head = c.tied_head ? embedding : matrix(std::string(head_name), c.vocab_size, c.width);
  if (weight_dtype == WeightDType::int8) quantise_all(progress);
}

std::vector<const Linear*> Weights::matrices() const { return matrices_of<const Linear>(*this); }

void Weights::quantise_all(const Progress& progress) {
  const auto all = matrices_of<Linear>(*this);
  const auto bytes = [](const Linear& matrix) {
    return matrix.out * matrix.in * dtype_bytes(matrix.dtype);
  };
  int64_t total = 0;
  for (const Linear* matrix : all) total += bytes(*matrix);
  int64_t done = 0;
  // Any instruction set: they give the same integers and scales.
  Context context({.threads = 1});
  for (Linear* matrix : all) {
    quantised_.push_back(quantise(*context.impl().kernels, *matrix));
    done += bytes(*matrix);
    if (progress) progress("quantise", done, total);
  }
}

Linear Weights::matrix(const std::string& name, int64_t out, int64_t in) {
  const Tensor& tensor = checkpoint_.at(name, {out, in});
  Linear linear{tensor.data, *tensor.dtype, in, out, {}};
  if (reinterpret_cast<uintptr_t>(tensor.data) % static_cast<size_t>(dtype_bytes(*tensor.dtype)) !=
      0) {
    copies_.emplace_back(tensor.bytes);
    std::memcpy(copies_.back().data(), tensor.data, static_cast<size_t>(tensor.bytes));
    linear.weight = copies_.back().data();
  }
  return linear;
}

Linear Weights::linear(int64_t layer, const std::string& part, int64_t out, int64_t in, bool bias) {
  Linear result = matrix(layer_tensor(layer, part + ".weight"), out, in);
  if (bias) result.bias = vector_of(checkpoint_, layer_tensor(layer, part + ".bias"), out);
  return result;
}

}  // namespace gqa
