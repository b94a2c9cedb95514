// Model: loading and the forward pass.
#include <memory>
#include <type_traits>

#include "gqa/attention.h"
#include "gqa/model.h"
#include "kernels/context.h"
#include "model/rope.h"
#include "model/rows.h"

namespace gqa {
namespace {

/// The activations of a batch of rows (tokens), all dense [rows][...].
struct Activations {
  float* hidden;    ///< [width], the residual stream
  float* normed;    ///< [width]
  float* q;         ///< [q_heads * head_dim]
  float* k;         ///< [kv_heads * head_dim]
  float* v;         ///< [kv_heads * head_dim]
  float* attended;  ///< [q_heads * head_dim]
  float* gate;      ///< [mlp_width]
  float* up;        ///< [mlp_width]
  float* cosines;   ///< [head_dim / 2]
  float* sines;     ///< [head_dim / 2]

  Activations(Context::Impl& context, const ModelConfig& c, int64_t rows) {
    int64_t kv_heads = 0;
    for (const int64_t n : c.kv_heads) kv_heads = std::max(kv_heads, n);
    const int64_t q_width = c.q_heads * c.head_dim;
    const int64_t kv_width = kv_heads * c.head_dim;
    const int64_t floats = 2 * c.width + 2 * q_width + 2 * kv_width + 2 * c.mlp_width + c.head_dim;
    float* p = context.scratch<float>(Scratch::activations, rows * floats);
    const auto take = [&](int64_t n) { return std::exchange(p, p + rows * n); };
    hidden = take(c.width);
    normed = take(c.width);
    q = take(q_width);
    k = take(kv_width);
    v = take(kv_width);
    attended = take(q_width);
    gate = take(c.mlp_width);
    up = take(c.mlp_width);
    cosines = take(c.head_dim / 2);
    sines = take(c.head_dim / 2);
  }
};

/// Per layer, as attend() takes them; none where all groups of the layer are equal by definition.
std::vector<std::vector<int32_t>> group_offsets(const ModelConfig& c) {
  std::vector<std::vector<int32_t>> layers;
  for (const auto& sizes : c.group_sizes) {
    std::vector<int32_t> offsets;
    if (!sizes.empty()) offsets.push_back(0);
    for (const int64_t size : sizes) {
      offsets.push_back(static_cast<int32_t>(offsets.back() + size));
    }
    layers.push_back(std::move(offsets));
  }
  layers.resize(static_cast<size_t>(c.n_layers));
  return layers;
}

/// Room for n objects, to be constructed in it.
template <typename T>
std::span<T> list(Context::Impl& context, Scratch slot, int64_t n) {
  static_assert(std::is_trivially_destructible_v<T>);
  return {context.scratch<T>(slot, n), static_cast<size_t>(n)};
}

}  // namespace

struct Model::Impl {
  ModelConfig config;
  Weights weights;
  Rope rope;
  std::vector<std::vector<int32_t>> group_offsets;

  Impl(const ModelConfig& c, const std::filesystem::path& dir, WeightDType weight_dtype,
       const Progress& progress)
      : config(c),
        weights(c, dir, weight_dtype, progress),
        rope(c.rope, c.head_dim),
        group_offsets(gqa::group_offsets(c)) {}

  Mask mask() const { return {.causal = true, .window = config.window}; }
  int64_t check(const KvCache& cache, std::span<const Step> steps) const;
  void embed(Context::Impl& context, const KvCache& cache, std::span<const Step> steps,
             const Activations& a) const;
  void attention(Context& context, KvCache& cache, std::span<const Step> steps, int64_t layer,
                 int64_t rows, const Activations& a) const;
  void mlp(Context::Impl& context, int64_t layer, int64_t rows, const Activations& a) const;
  void norm(Context::Impl& context, const std::vector<float>& weight, int64_t rows, const float* x,
            float* y) const {
    norm_rows(context, weight, config.rms_norm_eps, rows, x, y);
  }
};

/// Returns the number of tokens. That no sequence occurs twice is for KvCache::reserve() to say.
int64_t Model::Impl::check(const KvCache& cache, std::span<const Step> steps) const {
  const KvShape& shape = cache.shape();
  require(shape.kv_heads == config.kv_heads && shape.head_dim == config.head_dim &&
              shape.v_head_dim == config.head_dim,
          "forward: the cache was not made for this model");
  int64_t rows = 0;
  for (const Step& step : steps) {
    const auto n = static_cast<int64_t>(step.tokens.size());
    const int64_t len = cache.len(step.sequence);
    require(len + n <= config.max_positions,
            "forward: {} tokens after {} are more than the model's {} positions", n, len,
            config.max_positions);
    for (const int32_t id : step.tokens) {
      require(id >= 0 && id < config.vocab_size,
              "forward: token id {} is outside the vocabulary of {}", id, config.vocab_size);
    }
    rows += n;
  }
  return rows;
}

void Model::Impl::embed(Context::Impl& context, const KvCache& cache, std::span<const Step> steps,
                        const Activations& a) const {
  int64_t r = 0;
  for (const Step& step : steps) {
    embed_rows(context, weights.embedding, step.tokens, a.hidden + r * config.width);
    int64_t position = cache.len(step.sequence);
    const int64_t half = config.head_dim / 2;
    for (const int64_t end = r + std::ssize(step.tokens); r < end; ++r) {
      rope.angles(position++, a.cosines + r * half, a.sines + r * half);
    }
  }
}

void Model::Impl::attention(Context& context, KvCache& cache, std::span<const Step> steps,
                            int64_t layer, int64_t rows, const Activations& a) const {
  Context::Impl& impl = context.impl();
  const LayerWeights& w = weights.layers[static_cast<size_t>(layer)];
  const int64_t kv_heads = config.kv_heads[static_cast<size_t>(layer)];
  const int64_t dim = config.head_dim;
  norm(impl, w.attention_norm, rows, a.hidden, a.normed);
  linear(impl, w.q, a.normed, rows, a.q);
  linear(impl, w.k, a.normed, rows, a.k);
  linear(impl, w.v, a.normed, rows, a.v);
  for_rows(impl, rows, [&](int64_t r) {
    const float* cosines = a.cosines + r * (dim / 2);
    const float* sines = a.sines + r * (dim / 2);
    Rope::rotate(a.q + r * config.q_heads * dim, config.q_heads, dim, cosines, sines);
    Rope::rotate(a.k + r * kv_heads * dim, kv_heads, dim, cosines, sines);
  });
  int64_t r = 0;
  for (const Step& step : steps) {
    const auto n = static_cast<int64_t>(step.tokens.size());
    const std::array<int64_t, 3> shape{n, kv_heads, dim};
    cache.append(context, step.sequence, layer, {a.k + r * kv_heads * dim, DType::f32, shape},
                 {a.v + r * kv_heads * dim, DType::f32, shape});
    r += n;
  }
  // Views last until the next append, so they come after all of them.
  const auto batch = list<AttendItem>(impl, Scratch::model_items, std::ssize(steps));
  AttendItem* item = batch.data();
  r = 0;
  for (const Step& step : steps) {
    const auto n = static_cast<int64_t>(step.tokens.size());
    const std::array<int64_t, 3> shape{n, config.q_heads, dim};
    const int64_t at = r * config.q_heads * dim;
    std::construct_at(item++, AttendItem{.q = {a.q + at, DType::f32, shape},
                                         .kv = cache.view(step.sequence, layer),
                                         .out = {a.attended + at, DType::f32, shape}});
    r += n;
  }
  attend(context, batch,
         {.mask = mask(), .group_offsets = group_offsets[static_cast<size_t>(layer)]});
  linear(impl, w.o, a.attended, rows, a.normed);
  add_rows(impl, rows, config.width, a.hidden, a.normed);
}

void Model::Impl::mlp(Context::Impl& context, int64_t layer, int64_t rows,
                      const Activations& a) const {
  const LayerWeights& w = weights.layers[static_cast<size_t>(layer)];
  norm(context, w.mlp_norm, rows, a.hidden, a.normed);
  mlp_rows(context, w, rows, a.normed, a.gate, a.up, a.normed);
  add_rows(context, rows, config.width, a.hidden, a.normed);
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

Model Model::load(const std::filesystem::path& dir, const Progress& progress) {
  return load(dir, WeightDType::stored, progress);
}

Model Model::load(const std::filesystem::path& dir, WeightDType weight_dtype,
                  const Progress& progress) {
  return Model(std::make_unique<Impl>(load_config(dir), dir, weight_dtype, progress));
}

const ModelConfig& Model::config() const { return impl_->config; }
int64_t Model::parameters() const { return impl_->weights.parameters; }

std::vector<std::span<const std::byte>> Model::weights_read() const {
  std::vector<std::span<const std::byte>> memory;
  for (const Linear* matrix : impl_->weights.matrices()) {
    for (const auto& part : matrix->memory()) {
      if (!part.empty()) memory.push_back(part);
    }
  }
  return memory;
}

KvDType Model::default_kv_dtype() const { return kv_dtype(impl_->weights.layers.front().k.dtype); }

KvCache Model::make_cache(KvDType kv_dtype, int64_t max_pages) const {
  const ModelConfig& c = impl_->config;
  return KvCache({c.kv_heads, c.head_dim, c.head_dim, kv_dtype}, max_pages);
}

void Model::forward(Context& context, KvCache& cache, std::span<const Step> steps,
                    std::vector<float>& hidden) const {
  Context::Impl& impl = context.impl();
  const ModelConfig& c = impl_->config;
  const int64_t rows = impl_->check(cache, steps);
  hidden.resize(static_cast<size_t>(rows * c.width));
  const Activations a(impl, c, rows);
  const auto growths = list<KvCache::Growth>(impl, Scratch::model_steps, std::ssize(steps));
  for (size_t i = 0; i < steps.size(); ++i) {
    std::construct_at(&growths[i], KvCache::Growth{steps[i].sequence, std::ssize(steps[i].tokens)});
  }
  cache.reserve(growths);
  impl_->embed(impl, cache, steps, a);
  for (int64_t layer = 0; layer < c.n_layers; ++layer) {
    impl_->attention(context, cache, steps, layer, rows, a);
    impl_->mlp(impl, layer, rows, a);
  }
  impl_->norm(impl, impl_->weights.final_norm, rows, a.hidden, hidden.data());
}

void Model::forget(KvCache& cache, int64_t sequence, int64_t position) const {
  for (int64_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const SequenceKeys keys{.len = cache.len(sequence, layer)};
    const auto [kept, rest] = visible_keys(impl_->mask(), position, keys);
    cache.release(sequence, layer, kept.end, rest.begin);
  }
}

void Model::logits(Context& context, std::span<const float> hidden, std::span<float> out) const {
  const ModelConfig& c = impl_->config;
  const int64_t rows = static_cast<int64_t>(hidden.size()) / c.width;
  require(static_cast<int64_t>(hidden.size()) == rows * c.width &&
              static_cast<int64_t>(out.size()) == rows * c.vocab_size,
          "logits: {} hidden values and {} logits do not fit width {} and vocabulary {}",
          hidden.size(), out.size(), c.width, c.vocab_size);
  linear(context.impl(), impl_->weights.head, hidden.data(), rows, out.data());
}

}  // namespace gqa
