// The forward pass of a Llama or Mistral model in double precision, straight from the formulas, one
// token at a time.
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "support/tiny_llama.h"

namespace gqa::test {

class NaiveLlama {
 public:
  NaiveLlama(const TinyLlama& model, const std::filesystem::path& dir)
      : m_(model), tensors_(load_tensors(dir)) {}

  /// Keys s that a token t does not see, besides those that the model's own mask hides.
  std::function<bool(size_t t, size_t s)> hidden = {};

  /// Logits of every token of a sequence; RoPE with theta 10,000, unscaled.
  std::vector<std::vector<double>> logits(const std::vector<int32_t>& tokens) {
    keys_.assign(static_cast<size_t>(m_.n_layers), {});
    values_ = keys_;
    std::vector<std::vector<double>> all;
    for (size_t t = 0; t < tokens.size(); ++t) {
      Vector x = row("model.embed_tokens.weight", tokens[t], m_.width);
      for (int64_t l = 0; l < m_.n_layers; ++l) {
        const std::string layer = fmt::format("model.layers.{}.", l);
        add(x,
            attention(layer, static_cast<size_t>(l), norm(x, layer + "input_layernorm.weight"), t));
        add(x, mlp(layer, norm(x, layer + "post_attention_layernorm.weight")));
      }
      const std::string head = m_.tied_head ? "model.embed_tokens" : "lm_head";
      all.push_back(linear(head, norm(x, "model.norm.weight"), m_.vocab_size));
    }
    return all;
  }

  using Vector = std::vector<double>;
  /// Of the tokens of the last logits(), after rotation: [layer][token], [kv_heads * head_dim].
  const std::vector<std::vector<Vector>>& keys() const { return keys_; }

 private:
  Vector row(const std::string& name, int64_t i, int64_t n) const {
    const auto& values = tensors_.at(name).values;
    return {values.begin() + i * n, values.begin() + (i + 1) * n};
  }
  static void add(Vector& x, const Vector& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  Vector linear(const std::string& name, const Vector& x, int64_t out) const {
    Vector y;
    for (int64_t o = 0; o < out; ++o) {
      const Vector w = row(name + ".weight", o, static_cast<int64_t>(x.size()));
      double sum = tensors_.contains(name + ".bias") ? row(name + ".bias", o, 1)[0] : 0.0;
      for (size_t i = 0; i < x.size(); ++i) sum += w[i] * x[i];
      y.push_back(sum);
    }
    return y;
  }
  Vector norm(const Vector& x, const std::string& name) const {
    double squares = 0;
    for (const double v : x) squares += v * v;
    Vector y = row(name, 0, m_.width);
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] *= x[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5);
    }
    return y;
  }
  void rotate(Vector& x, size_t position) const {
    const auto dim = static_cast<size_t>(m_.head_dim);
    for (size_t head = 0; head < x.size(); head += dim) {
      for (size_t i = 0; i < dim / 2; ++i) {
        const double angle =
            static_cast<double>(position) *
            std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
        const double a = x[head + i];
        const double b = x[head + i + dim / 2];
        x[head + i] = a * std::cos(angle) - b * std::sin(angle);
        x[head + i + dim / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  Vector attention(const std::string& layer, size_t l, const Vector& x, size_t t) {
    const auto dim = static_cast<size_t>(m_.head_dim);
    Vector q = linear(layer + "self_attn.q_proj", x, m_.q_heads * m_.head_dim);
    const int64_t kv_width = m_.kv_heads_of(static_cast<int64_t>(l)) * m_.head_dim;
    const auto kv_heads = m_.kv_head_of_each(static_cast<int64_t>(l));
    Vector k = linear(layer + "self_attn.k_proj", x, kv_width);
    rotate(q, t);
    rotate(k, t);
    keys_[l].push_back(k);
    values_[l].push_back(linear(layer + "self_attn.v_proj", x, kv_width));
    Vector out(q.size());
    for (size_t h = 0; h < static_cast<size_t>(m_.q_heads); ++h) {
      const auto kv = static_cast<size_t>(kv_heads[h]);
      double sum = 0;
      for (size_t s = 0; s <= t; ++s) {
        if (m_.window > 0 && t - s >= static_cast<size_t>(m_.window)) continue;
        if (hidden && hidden(t, s)) continue;
        double score = 0;
        for (size_t d = 0; d < dim; ++d) score += q[h * dim + d] * keys_[l][s][kv * dim + d];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(dim)));
        sum += weight;
        for (size_t d = 0; d < dim; ++d) out[h * dim + d] += weight * values_[l][s][kv * dim + d];
      }
      for (size_t d = 0; d < dim; ++d) out[h * dim + d] /= sum;
    }
    return linear(layer + "self_attn.o_proj", out, m_.width);
  }
  Vector mlp(const std::string& layer, const Vector& x) const {
    Vector gate = linear(layer + "mlp.gate_proj", x, m_.mlp_width);
    const Vector up = linear(layer + "mlp.up_proj", x, m_.mlp_width);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
    return linear(layer + "mlp.down_proj", gate, m_.width);
  }

  TinyLlama m_;
  std::map<std::string, Loaded> tensors_;
  std::vector<std::vector<Vector>> keys_, values_;  ///< [layer][token]
};

}  // namespace gqa::test
