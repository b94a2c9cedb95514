// A decoding step allocates nothing.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "gqa/generate.h"
#include "gqa/model.h"
#include "support/count_allocations.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

TEST(SteadyState, ADecodingStepAllocatesNothing) {
  const test::TempDir dir;
  const Model model =
      Model::load(test::write_tiny(dir / "model", {.kv_heads = 2, .max_positions = 400}));
  const ModelConfig& c = model.config();
  Context context({.threads = 2});
  KvCache cache = model.make_cache(KvDType::f16);
  constexpr size_t batch = 3;
  std::array<int32_t, batch> tokens{1, 2, 3};
  std::array<Model::Step, batch> steps;
  for (size_t i = 0; i < batch; ++i) {
    steps[i] = {cache.create(), std::span(tokens).subspan(i, 1)};
  }
  std::vector<float> hidden;
  std::vector<float> logits(batch * static_cast<size_t>(c.vocab_size));
  Sampler greedy({});
  Sampler drawing({.temperature = 0.8f, .top_k = 7, .top_p = 0.9f, .repetition_penalty = 1.1f});
  for (int64_t step = 0; step < 300; ++step) {
    const int64_t count = test::count_allocations([&] {
      model.forward(context, cache, steps, hidden);
      model.logits(context, hidden, logits);
      const std::span all_logits(logits);
      for (size_t i = 0; i < batch; ++i) {
        const auto row = all_logits.subspan(i * static_cast<size_t>(c.vocab_size),
                                            static_cast<size_t>(c.vocab_size));
        tokens[i] = (i == 0 ? greedy : drawing).next(row, tokens);
      }
    });
    // The first step warms up; every 64 tokens a sequence takes a page for each layer.
    if (step % KvCache::page_size == 0) continue;
    ASSERT_EQ(count, 0) << "step " << step;
  }
}

}  // namespace
}  // namespace gqa
