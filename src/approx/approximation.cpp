// Approximation: which variant serves a spec.
#include <algorithm>
#include <vector>

#include "approx/clustered.h"
#include "approx/global_local.h"
#include "approx/low_rank.h"
#include "approx/pages.h"
#include "approx/variant.h"
#include "attention/check.h"
#include "attention/visible.h"
#include "core/fail.h"

namespace gqa {
namespace {

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

}  // namespace

std::unique_ptr<Variant> make_variant(const AttentionSpec& spec, const KvShape& shape,
                                      KeyDirections directions) {
  using Result = std::unique_ptr<Variant>;
  return std::visit(
      Overloaded{
          [&](const Clustered& s) -> Result {
            return std::make_unique<ClusteredVariant>(s, shape);
          },
          [&](const DynamicGroups& s) -> Result {
            return std::make_unique<ClusteredVariant>(s, shape);
          },
          [&](const GlobalLocal& s) -> Result {
            return std::make_unique<GlobalLocalVariant>(s, shape);
          },
          [&](const TopPages& s) -> Result { return std::make_unique<TopPagesVariant>(s, shape); },
          [&](const TopMass& s) -> Result { return std::make_unique<TopMassVariant>(s, shape); },
          [&](const LowRank& s) -> Result {
            return std::make_unique<LowRankVariant>(s, shape, std::move(directions));
          },
          [](const auto&) -> Result { return nullptr; }},
      spec);
}

struct Approximation::Impl {
  AttentionSpec spec;
  KvShape shape;
  std::unique_ptr<Variant> variant;  ///< null: the spec is a mask
  Tally tally = {};

  void check(const KvCache& cache, int64_t layer, std::span<const Item> batch,
             const Options& options) const;
  void attend_masked(Context& context, const KvCache& cache, int64_t layer,
                     std::span<const Item> batch, const Options& options);
};

Approximation::Approximation(const AttentionSpec& spec, const KvShape& shape,
                             KeyDirections directions)
    : impl_(new Impl{spec, shape, make_variant(spec, shape, std::move(directions))}) {}
Approximation::~Approximation() = default;
Approximation::Approximation(Approximation&&) noexcept = default;
Approximation& Approximation::operator=(Approximation&&) noexcept = default;

const AttentionSpec& Approximation::spec() const { return impl_->spec; }
const ApproxStats& Approximation::stats() const { return impl_->tally.stats(); }
void Approximation::reset_stats() { impl_->tally = {}; }
int64_t Approximation::memory_bytes() const {
  return impl_->variant ? impl_->variant->memory_bytes() : 0;
}

std::optional<Mask> Approximation::as_mask(const AttentionSpec& spec, const Mask& model) {
  Mask mask = model;
  if (std::holds_alternative<ExactAttention>(spec)) return mask;
  if (const auto* local = std::get_if<BlockLocal>(&spec)) {
    mask.block = local->block;
    return mask;
  }
  if (const auto* sliding = std::get_if<SlidingWindow>(&spec)) {
    mask.window = model.window > 0 ? std::min(model.window, sliding->window) : sliding->window;
    return mask;
  }
  return std::nullopt;
}

void Approximation::Impl::attend_masked(Context& context, const KvCache& cache, int64_t layer,
                                        std::span<const Item> batch, const Options& options) {
  const Mask model{.window = options.window};
  const Mask mask = *as_mask(spec, model);
  std::vector<AttendItem> items;
  for (const Item& item : batch) {
    items.push_back({.q = item.q, .kv = cache.view(item.sequence, layer), .out = item.out});
  }
  tally.attend([&] {
    gqa::attend(context, items,
                {.scale = options.scale, .mask = mask, .group_offsets = options.group_offsets});
  });
  const auto seen = [](const Mask& m, int64_t position, const Call& call) {
    int64_t n = 0;
    for (const KeyRange& run : visible_keys(m, position, {.len = call.len()})) {
      n += run.end - run.begin;
    }
    return n;
  };
  for (const Item& item : batch) {
    const Call call{context, cache, layer, item, options};
    for (int64_t t = 0; t < call.q_len(); ++t) {
      const int64_t all = seen(model, call.position(t), call);
      const int64_t read = seen(mask, call.position(t), call);
      for (int64_t g = 0; g < call.kv_heads(); ++g) tally.add(call, all, read, 0.0);
    }
  }
}

/// All that attend() would find, before anything is read or kept: variants look at queries first.
void Approximation::Impl::check(const KvCache& cache, int64_t layer, std::span<const Item> batch,
                                const Options& options) const {
  require(options.window == 0,
          "attention: {} does not go with the model's own window of {} tokens: expected exact, "
          "block:B or window:W",
          attention_text(spec), options.window);
  const KvShape& got = cache.shape();
  require(got.kv_heads == shape.kv_heads && got.head_dim == shape.head_dim &&
              got.v_head_dim == shape.v_head_dim,
          "attention: {} was made for caches of KV heads [{}] and head sizes {} and {}, got [{}], "
          "{} and {}",
          attention_text(spec), fmt::join(shape.kv_heads, ", "), shape.head_dim, shape.v_head_dim,
          fmt::join(got.kv_heads, ", "), got.head_dim, got.v_head_dim);
  const AttendOptions as_exact{.scale = options.scale, .group_offsets = options.group_offsets};
  for (size_t i = 0; i < batch.size(); ++i) {
    const Item& item = batch[i];
    const PackedKv kv = cache.view(item.sequence, layer);
    check_item({"attend", i}, {.q = item.q, .kv = kv, .out = item.out}, as_exact);
    require(item.q.shape[0] <= kv.len(),
            "attention: {} query tokens, but the sequence has {}: their keys come first",
            item.q.shape[0], kv.len());
  }
}

void Approximation::attend(Context& context, const KvCache& cache, int64_t layer,
                           std::span<const Item> batch, const Options& options) {
  if (!impl_->variant) {
    impl_->attend_masked(context, cache, layer, batch, options);
    return;
  }
  impl_->check(cache, layer, batch, options);
  for (const Item& item : batch) {
    const Call call{context, cache, layer, item, options};
    impl_->variant->attend(call, impl_->tally);
  }
}

}  // namespace gqa
