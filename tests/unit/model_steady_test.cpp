// A decoding step allocates nothing of its own.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "gqa/generate.h"
#include "gqa/model.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

static std::atomic<int64_t> allocations{0};
[[gnu::noinline]] void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace gqa {
namespace {

/// Allocations that f makes.
template <typename F>
int64_t count(const F& f) {
  const int64_t before = allocations;
  f();
  return allocations - before;
}

TEST(SteadyState, ADecodingStepAllocatesNoMoreThanTheCacheDoesToTakeItsTokens) {
  const test::TempDir dir;
  const Model model =
      Model::load(test::write_tiny(dir / "model", {.kv_heads = 2, .max_positions = 400}));
  const ModelConfig& c = model.config();
  Context context({.threads = 2});
  KvCache cache = model.make_cache(KvDType::f16);
  KvCache twin = model.make_cache(KvDType::f16);  // is given as many tokens by itself
  constexpr size_t batch = 3;
  std::array<int32_t, batch> tokens{1, 2, 3};
  std::array<Model::Step, batch> steps;
  std::array<KvCache::Growth, batch> growths;
  for (size_t i = 0; i < batch; ++i) {
    steps[i] = {cache.create(), std::span(tokens).subspan(i, 1)};
    growths[i] = {twin.create(), 1};
  }
  std::vector<float> hidden;
  std::vector<float> logits(batch * static_cast<size_t>(c.vocab_size));
  const std::vector<float> kv(static_cast<size_t>(2 * c.head_dim));
  Sampler greedy({});
  Sampler drawing({.temperature = 0.8f, .top_k = 7, .top_p = 0.9f, .repetition_penalty = 1.1f});
  for (int64_t step = 0; step < 300; ++step) {
    // Pages are new every 64 tokens, in both caches at once.
    const int64_t cache_alone = count([&] {
      twin.reserve(growths);
      for (int64_t layer = 0; layer < c.n_layers; ++layer) {
        for (const auto& growth : growths) {
          const AnyView<3> row(kv.data(), DType::f32, {1, 2, c.head_dim});
          twin.append(context, growth.sequence, layer, row, row);
        }
      }
    });
    const int64_t all = count([&] {
      model.forward(context, cache, steps, hidden);
      model.logits(context, hidden, logits);
      const std::span all_logits(logits);
      for (size_t i = 0; i < batch; ++i) {
        const auto row = all_logits.subspan(i * static_cast<size_t>(c.vocab_size),
                                            static_cast<size_t>(c.vocab_size));
        tokens[i] = (i == 0 ? greedy : drawing).next(row, tokens);
      }
    });
    if (step == 0) continue;  // warms up
    ASSERT_EQ(all, cache_alone) << "step " << step;
  }
}

}  // namespace
}  // namespace gqa
