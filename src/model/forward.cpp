// Model: loading and the forward pass.
#include <memory>
#include <type_traits>

#include "core/fail.h"
#include "gqa/attention.h"
#include "gqa/model.h"
#include "io/key_directions.h"
#include "kernels/context.h"
#include "model/activations.h"
#include "model/rope.h"
#include "model/rows.h"

namespace gqa {
namespace {

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
  std::filesystem::path dir;
  Weights weights;
  Rope rope;
  std::vector<std::vector<int32_t>> group_offsets;

  Impl(const ModelConfig& c, const std::filesystem::path& folder, WeightDType weight_dtype,
       const Progress& progress)
      : config(c),
        dir(folder),
        weights(c, folder, weight_dtype, progress),
        rope(c.rope, c.head_dim),
        group_offsets(gqa::group_offsets(c)) {}

  Mask mask() const { return {.causal = true, .window = config.window}; }
  KvShape kv_shape(KvDType dtype) const {
    return {config.kv_heads, config.head_dim, config.head_dim, dtype};
  }
  int64_t check(const KvCache& cache, std::span<const Step> steps) const;
  void check(const AttentionSpec& attention) const;
  void embed(Context::Impl& context, const KvCache& cache, std::span<const Step> steps,
             const Activations& a) const;
  void attention(Context& context, KvCache& cache, std::span<const Step> steps, int64_t layer,
                 int64_t rows, const Activations& a, Approximation* approximation) const;
  void attend(Context& context, const KvCache& cache, std::span<const Step> steps, int64_t layer,
              const Activations& a, Approximation* approximation) const;
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

void Model::Impl::check(const AttentionSpec& attention) const {
  if (config.window == 0 || Approximation::as_mask(attention, mask())) return;
  fail(ErrorKind::usage,
       "attention: the model has a sliding window of its own ({} tokens): expected exact, block:B "
       "or window:W, got {}",
       config.window, attention_text(attention));
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
                            int64_t layer, int64_t rows, const Activations& a,
                            Approximation* approximation) const {
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
  attend(context, cache, steps, layer, a, approximation);
  linear(impl, w.o, a.attended, rows, a.normed);
  add_rows(impl, rows, config.width, a.hidden, a.normed);
}

/// Of all rows of q, whose keys are in the cache: views last until the next append.
void Model::Impl::attend(Context& context, const KvCache& cache, std::span<const Step> steps,
                         int64_t layer, const Activations& a, Approximation* approximation) const {
  const auto items = [&]<class Item>(auto&& item_of) {
    const auto batch = list<Item>(context.impl(), Scratch::model_items, std::ssize(steps));
    int64_t at = 0;
    for (size_t i = 0; i < steps.size(); ++i) {
      const std::array<int64_t, 3> shape{std::ssize(steps[i].tokens), config.q_heads,
                                         config.head_dim};
      std::construct_at(&batch[i],
                        item_of(steps[i].sequence, AnyView<3>(a.q + at, DType::f32, shape),
                                AnyMutView<3>(a.attended + at, DType::f32, shape)));
      at += shape[0] * shape[1] * shape[2];
    }
    return batch;
  };
  const std::span<const int32_t> offsets = group_offsets[static_cast<size_t>(layer)];
  if (approximation) {
    using Item = Approximation::Item;
    const auto batch = items.operator()<Item>([](int64_t sequence, const auto& q, const auto& out) {
      return Item{sequence, q, out};
    });
    approximation->attend(context, cache, layer, batch,
                          {.window = config.window, .group_offsets = offsets});
  } else {
    const auto batch =
        items.operator()<AttendItem>([&](int64_t sequence, const auto& q, const auto& out) {
          return AttendItem{.q = q, .kv = cache.view(sequence, layer), .out = out};
        });
    gqa::attend(context, batch, {.mask = mask(), .group_offsets = offsets});
  }
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
  return KvCache(impl_->kv_shape(kv_dtype), max_pages);
}

Approximation Model::make_approximation(const AttentionSpec& spec, KvDType kv_dtype) const {
  impl_->check(spec);
  const bool directed = std::holds_alternative<LowRank>(spec);
  return Approximation(spec, impl_->kv_shape(kv_dtype),
                       directed ? key_directions() : KeyDirections());
}

KeyDirections Model::key_directions() const {
  if (!has_key_directions(impl_->dir)) return {};
  return {read_key_directions(impl_->dir, impl_->config)};
}

void Model::forward(Context& context, KvCache& cache, std::span<const Step> steps,
                    std::vector<float>& hidden, Approximation* approximation) const {
  Context::Impl& impl = context.impl();
  const ModelConfig& c = impl_->config;
  const int64_t rows = impl_->check(cache, steps);
  if (approximation) impl_->check(approximation->spec());
  hidden.resize(static_cast<size_t>(rows * c.width));
  const Activations a(impl, c, rows);
  const auto growths = list<KvCache::Growth>(impl, Scratch::model_steps, std::ssize(steps));
  for (size_t i = 0; i < steps.size(); ++i) {
    std::construct_at(&growths[i], KvCache::Growth{steps[i].sequence, std::ssize(steps[i].tokens)});
  }
  cache.reserve(growths);
  impl_->embed(impl, cache, steps, a);
  for (int64_t layer = 0; layer < c.n_layers; ++layer) {
    impl_->attention(context, cache, steps, layer, rows, a, approximation);
    impl_->mlp(impl, layer, rows, a);
  }
  impl_->norm(impl, impl_->weights.final_norm, rows, a.hidden, hidden.data());
}

void Model::forget(KvCache& cache, int64_t sequence, int64_t position,
                   const AttentionSpec& attention) const {
  const Mask mask = Approximation::as_mask(attention, impl_->mask()).value_or(impl_->mask());
  for (int64_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const SequenceKeys keys{.len = cache.len(sequence, layer)};
    const auto [kept, rest] = visible_keys(mask, position, keys);
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
