#include "gqa/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "gqa/error.h"
#include "gqa/generate.h"
#include "model/rope.h"
#include "support/expect_error.h"
#include "support/naive_llama.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

using test::TinyLlama;

std::vector<TinyLlama> variants() {
  TinyLlama grouped{.kv_heads = 2, .tied_head = false};
  TinyLlama biased{
      .q_heads = 6, .kv_heads = 1, .head_dim = 4, .attention_bias = true, .mlp_bias = true};
  TinyLlama half{.kv_heads = 4, .dtype = DType::f16, .shards = 3};
  TinyLlama brain{.dtype = DType::bf16};
  TinyLlama windowed{.kv_heads = 4, .tied_head = false, .window = 7};
  TinyLlama itself_alone{.window = 1};
  TinyLlama per_layer{.n_layers = 3, .layer_kv_heads = {2, 8, 1}, .attention_bias = true};
  TinyLlama unequal{
      .n_layers = 3, .layer_kv_heads = {3, 4, 5}, .group_sizes = {{3, 1, 4}, {}, {1, 1, 4, 1, 1}}};
  TinyLlama unequal_windowed{
      .q_heads = 7, .layer_kv_heads = {2, 7}, .group_sizes = {{6, 1}, {}}, .window = 7};
  return {grouped, biased,           half,       brain, windowed, itself_alone, per_layer,
          unequal, unequal_windowed, TinyLlama{}};
}

std::vector<int32_t> some_tokens(int64_t n) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i)
    tokens.push_back(static_cast<int32_t>((i * i * 7 + 3 * i + 1) % 19));
  return tokens;
}

/// Logits [tokens][vocab] of a sequence fed in pieces.
std::vector<float> run(Context& context, const Model& model, std::span<const int32_t> tokens,
                       size_t piece, KvDType kv_dtype = KvDType::f32) {
  KvCache cache = model.make_cache(kv_dtype);
  const int64_t sequence = cache.create();
  std::vector<float> all;
  std::vector<float> hidden;
  while (!tokens.empty()) {
    const size_t n = std::min(piece, tokens.size());
    const Model::Step step{sequence, tokens.first(n)};
    model.forward(context, cache, std::span(&step, 1), hidden);
    std::vector<float> logits(n * static_cast<size_t>(model.config().vocab_size));
    model.logits(context, hidden, logits);
    all.insert(all.end(), logits.begin(), logits.end());
    tokens = tokens.subspan(n);
  }
  return all;
}

TEST(Model, EqualsTheFormulasInDoublePrecision) {
  for (const TinyLlama& variant : variants()) {
    const test::TempDir dir;
    const auto folder = test::write_tiny(dir / "model", variant);
    const Model model = Model::load(folder);
    Context context({.threads = 2});
    const auto tokens = some_tokens(29);
    const auto expected = test::NaiveLlama(variant, folder).logits(tokens);
    for (const size_t piece : {1u, 5u, 29u}) {
      const auto got = run(context, model, tokens, piece);
      for (size_t t = 0; t < tokens.size(); ++t) {
        double largest = 0;
        for (const double x : expected[t]) largest = std::max(largest, std::abs(x));
        for (size_t i = 0; i < expected[t].size(); ++i) {
          // Some twenty chained sums of up to 48 terms, each within 48 units of 2^-24.
          ASSERT_NEAR(got[t * expected[t].size() + i], expected[t][i], 20 * 48 * 0x1p-24 * largest)
              << "token " << t << ", pieces of " << piece;
        }
      }
    }
  }
}

TEST(Model, NeitherThreadsNorChunksNorTheBatchChangeABit) {
  const test::TempDir dir;
  const Model model =
      Model::load(test::write_tiny(dir / "model", {.kv_heads = 2, .dtype = DType::bf16}));
  const auto tokens = some_tokens(20);
  Context one({.threads = 1});
  const auto alone = run(one, model, tokens, 1);
  for (int threads = 1; threads <= 4; ++threads) {
    Context many({.threads = threads});
    for (const size_t piece : {1u, 5u, 13u, 20u}) {
      EXPECT_EQ(run(many, model, tokens, piece), alone) << threads << ", pieces of " << piece;
    }
  }
  // Twenty sequences of different lengths, decoded together.
  KvCache cache = model.make_cache(KvDType::f32);
  std::vector<Model::Step> steps;
  std::vector<float> hidden;
  for (size_t s = 0; s < 20; ++s) {
    steps.push_back({cache.create(), std::span(tokens).subspan(s, 1)});
    const Model::Step prompt{steps[s].sequence, std::span(tokens).first(s)};
    if (s > 0) model.forward(one, cache, std::span(&prompt, 1), hidden);
  }
  model.forward(one, cache, steps, hidden);
  std::vector<float> logits(20 * 19);
  model.logits(one, hidden, logits);
  EXPECT_EQ(logits, alone);
}

TEST(Model, ForksThatShareAPrefixGoOnAsIfTheyHadReadItThemselves) {
  const test::TempDir dir;
  const Model model = Model::load(test::write_tiny(dir / "model", {.kv_heads = 2}));
  Context context({.threads = 1});
  const auto tokens = some_tokens(12);
  const auto alone = run(context, model, tokens, 1);
  KvCache cache = model.make_cache(KvDType::f32);
  const int64_t parent = cache.create();
  std::vector<float> hidden;
  for (size_t t = 0; t < 10; ++t) {
    const Model::Step step{parent, std::span(tokens).subspan(t, 1)};
    model.forward(context, cache, std::span(&step, 1), hidden);
  }
  // The second fork goes back and reads something else first.
  const int64_t same = cache.fork(parent, 10);
  const int64_t other = cache.fork(parent, 5);
  const std::vector<int32_t> else_tokens{3, 1};
  const std::vector<Model::Step> apart{{same, std::span(tokens).subspan(10, 1)},
                                       {other, std::span(else_tokens).first(1)}};
  model.forward(context, cache, apart, hidden);
  const Model::Step last{parent, std::span(tokens).subspan(10, 1)};
  std::vector<float> parents;
  model.forward(context, cache, std::span(&last, 1), parents);
  std::vector<float> logits(2 * 19);
  model.logits(context, hidden, logits);
  for (size_t i = 0; i < 19; ++i) EXPECT_EQ(logits[i], alone[10 * 19 + i]);
  hidden.resize(parents.size());
  EXPECT_EQ(hidden, parents);
}

TEST(Model, RefusesAStepBeforeItChangesACache) {
  const test::TempDir dir;
  const Model model = Model::load(test::write_tiny(dir / "model", {.kv_heads = 2}));
  const Model full = Model::load(test::write_tiny(dir / "full", {}));
  Context context({.threads = 1});
  KvCache cache = model.make_cache(KvDType::f16, 3);  // a page for each of two layers, and one more
  const int64_t first = cache.create();
  const int64_t second = cache.create();
  const auto tokens = some_tokens(4);
  std::vector<float> hidden;
  const auto forward = [&](const Model& m, std::vector<Model::Step> steps) {
    m.forward(context, cache, steps, hidden);
  };
  using test::expect_error;
  expect_error(ErrorKind::usage, {"not made for this model"}, [&] {
    forward(full, {{first, tokens}});
  });
  expect_error(ErrorKind::usage, {"sequence 0 occurs twice"}, [&] {
    forward(model, {{first, tokens}, {first, tokens}});
  });
  expect_error(ErrorKind::usage, {"no sequence 7"}, [&] {
    forward(model, {{first, tokens}, {7, tokens}});
  });
  expect_error(ErrorKind::resources, {"1 page is missing: 4 needed, 3 left of 3"}, [&] {
    forward(model, {{first, tokens}, {second, tokens}});
  });
  EXPECT_EQ(cache.usage(), KvUsage{});
  EXPECT_EQ(cache.len(first, 0), 0);
  forward(model, {{second, tokens}});
  EXPECT_EQ(cache.len(second), 4);
}

TEST(Model, ForgetsWhatItsWindowHasLeftAndNothingElse) {
  const test::TempDir dir;
  const auto load = [&](int64_t window) {
    return Model::load(test::write_tiny(dir / std::to_string(window),
                                        {.kv_heads = 2, .window = window, .max_positions = 400}));
  };
  Context context({.threads = 1});
  const auto tokens = some_tokens(400);
  for (const int64_t window : {1, 7, 64, 100}) {
    const Model model = load(window);
    KvCache whole = model.make_cache(KvDType::f32);
    KvCache short_memory = model.make_cache(KvDType::f32);
    const int64_t all = whole.create(), some = short_memory.create();
    std::vector<float> expected, got;
    for (size_t t = 0; t < tokens.size(); ++t) {
      const auto feed = [&](KvCache& cache, int64_t sequence, std::vector<float>& hidden) {
        const Model::Step step{sequence, std::span(tokens).subspan(t, 1)};
        model.forward(context, cache, std::span(&step, 1), hidden);
      };
      feed(whole, all, expected);
      feed(short_memory, some, got);
      ASSERT_EQ(got, expected) << "window " << window << ", token " << t;
      model.forget(short_memory, some, static_cast<int64_t>(t) + 1);
      // Of each layer: the pages from the one with the next token's first key to the last.
      const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(t) + 2 - window) / 64;
      ASSERT_EQ(short_memory.usage().pages, 2 * (static_cast<int64_t>(t) / 64 + 1 - first));
    }
  }
  // Without a window nothing is forgotten.
  const Model model = Model::load(test::write_tiny(dir / "all", {}));
  KvCache cache = model.make_cache(KvDType::f32);
  const Model::Step step{cache.create(), std::span(tokens).first(30)};
  std::vector<float> hidden;
  model.forward(context, cache, std::span(&step, 1), hidden);
  model.forget(cache, step.sequence, 30);
  EXPECT_EQ(cache.usage().pages, 2);
}

TEST(Model, RefusesIdsAndLengthsThatDoNotFit) {
  const test::TempDir dir;
  const Model model = Model::load(test::write_tiny(dir / "model", {}));
  Context context({.threads = 1});
  const auto refused = [&](std::vector<int32_t> tokens, const std::string& message) {
    try {
      run(context, model, tokens, tokens.size());
      ADD_FAILURE() << "accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  refused({1, 19}, "id 19 is outside the vocabulary of 19");
  refused({-1}, "id -1");
  refused(some_tokens(33), "32 positions");
  EXPECT_EQ(run(context, model, some_tokens(32), 32).size(), 32u * 19u);
}

TEST(Model, KnowsItsDefaultCacheTypeAndSize) {
  const test::TempDir dir;
  const Model full = Model::load(test::write_tiny(dir / "f32", {}));
  const Model half =
      Model::load(test::write_tiny(dir / "f16", {.kv_heads = 2, .dtype = DType::f16}));
  EXPECT_EQ(full.default_kv_dtype(), KvDType::f32);
  EXPECT_EQ(half.default_kv_dtype(), KvDType::f16);
  EXPECT_EQ(full.make_cache(KvDType::f32).shape().bytes_per_token(), 2 * 8 * 6 * 2 * 4);
  EXPECT_EQ(half.make_cache(KvDType::f16).shape().bytes_per_token(), 2 * 2 * 6 * 2 * 2);
  EXPECT_EQ(half.make_cache(KvDType::int4).shape().bytes_per_token(), 2 * 2 * 2 * (4 + 4));
  int64_t parameters = 0;
  for (const auto& [name, tensor] : test::load_tensors(dir / "f32")) {
    parameters += static_cast<int64_t>(tensor.values.size());
  }
  EXPECT_EQ(full.parameters(), parameters);
}

TEST(Rope, TurnsEachPlaneByItsFrequency) {
  const Rope rope(RopeConfig{.theta = 100.0}, 4);
  EXPECT_FLOAT_EQ(rope.frequencies()[0], 1.0f);
  EXPECT_FLOAT_EQ(rope.frequencies()[1], 0.1f);
  float c[2], s[2];
  rope.angles(3, c, s);
  float x[] = {1, 0, 0, 1};
  Rope::rotate(x, 1, 4, c, s);
  EXPECT_FLOAT_EQ(x[0], std::cos(3.0f));
  EXPECT_FLOAT_EQ(x[2], std::sin(3.0f));
  EXPECT_FLOAT_EQ(x[1], -std::sin(0.3f));
  EXPECT_FLOAT_EQ(x[3], std::cos(0.3f));
}

TEST(Rope, LongropeScalesCosinesAndSines) {
  const Rope rope(RopeConfig{.theta = 100.0,
                             .scaling = RopeConfig::Scaling::longrope,
                             .attention_factor = 0.5,
                             .short_factors = {1.0, 0.2},
                             .long_factors = {3.0, 3.0}},
                  4);
  float c[2], s[2];
  rope.angles(3, c, s);
  EXPECT_FLOAT_EQ(c[0], 0.5f * std::cos(3.0f));
  EXPECT_FLOAT_EQ(s[0], 0.5f * std::sin(3.0f));
  EXPECT_FLOAT_EQ(c[1], 0.5f * std::cos(1.5f));
  EXPECT_FLOAT_EQ(s[1], 0.5f * std::sin(1.5f));
}

/// With the bits of the planes' own frequencies, whatever these come from.
TEST(Rope, OfSomePlanes) {
  using Scaling = RopeConfig::Scaling;
  constexpr int64_t head_dim = 128;
  const std::vector<int64_t> planes{0, 3, 4, 17, 40, 61, 63};
  for (const Scaling scaling :
       {Scaling::none, Scaling::linear, Scaling::llama3, Scaling::yarn, Scaling::longrope}) {
    RopeConfig config{.theta = 500000.0,
                      .scaling = scaling,
                      .factor = 8.0,
                      .low_freq_factor = 1.0,
                      .high_freq_factor = 4.0,
                      .original_positions = 8192};
    if (scaling == Scaling::longrope) config.attention_factor = 1.25;
    for (int i = 0; i < 64; ++i) {
      config.short_factors.push_back(1.0 + 0.3 * i);
      config.long_factors.push_back(2.0 + 0.7 * i);
    }
    const RopeConfig some = rope_of_planes(config, head_dim, planes, 131072);
    EXPECT_EQ(some.scaling, Scaling::longrope);
    EXPECT_EQ(some.original_positions, scaling == Scaling::longrope ? 8192 : 131072);
    const Rope all(config, head_dim);
    const Rope rope(some, 14);
    EXPECT_EQ(rope.attention_factor(), all.attention_factor());
    ASSERT_EQ(rope.frequencies().size(), planes.size());
    for (size_t i = 0; i < planes.size(); ++i) {
      EXPECT_EQ(rope.frequencies()[i], all.frequencies()[static_cast<size_t>(planes[i])]) << i;
    }
    if (scaling != Scaling::longrope) {
      EXPECT_EQ(some.long_factors, some.short_factors);
      continue;
    }
    config.short_factors = config.long_factors;
    RopeConfig longer = some;
    longer.short_factors = some.long_factors;
    for (size_t i = 0; i < planes.size(); ++i) {
      EXPECT_EQ(Rope(longer, 14).frequencies()[i],
                Rope(config, head_dim).frequencies()[static_cast<size_t>(planes[i])]);
    }
  }
}

TEST(Rope, ScalingKeepsFastPlanesAndSlowsSlowOnes) {
  RopeConfig config{.theta = 500000.0,
                    .factor = 8.0,
                    .low_freq_factor = 1.0,
                    .high_freq_factor = 4.0,
                    .original_positions = 8192};
  const auto plain = Rope(config, 128).frequencies();
  config.scaling = RopeConfig::Scaling::linear;
  const auto linear = Rope(config, 128).frequencies();
  config.scaling = RopeConfig::Scaling::llama3;
  const auto llama3 = Rope(config, 128).frequencies();
  config.scaling = RopeConfig::Scaling::yarn;
  const auto yarn = Rope(config, 128).frequencies();
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_FLOAT_EQ(linear[i], plain[i] / 8);
    EXPECT_LE(llama3[i], plain[i]);
    EXPECT_GE(llama3[i], plain[i] / 8 * 0.9999f);
  }
  config.scaling = RopeConfig::Scaling::longrope;
  for (int i = 0; i < 64; ++i) config.short_factors.push_back(1.0 + 0.25 * i);
  const auto longrope = Rope(config, 128).frequencies();
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_FLOAT_EQ(longrope[i], plain[i] / (1.0f + 0.25f * static_cast<float>(i)));
  }
  for (const auto* scaled : {&llama3, &yarn}) {
    EXPECT_FLOAT_EQ(scaled->front(), plain.front());
    EXPECT_FLOAT_EQ(scaled->back(), plain.back() / 8);
    EXPECT_TRUE(std::is_sorted(scaled->rbegin(), scaled->rend()));
  }
}

}  // namespace
}  // namespace gqa
