// The runner with attention that leaves something out.
#include <gtest/gtest.h>

#include "gqa/generate.h"
#include "support/expect_error.h"
#include "support/tiny_runner.h"

namespace gqa {
namespace {

struct Setting : test::TinyRunner {
  explicit Setting(int64_t window = 0)
      : TinyRunner({.kv_heads = 2, .vocab_size = 257, .window = window, .max_positions = 1024}) {
    change_config("eos_token_id", nullptr);
  }
  std::vector<float> hidden(const Model& model, const std::vector<size_t>& pieces,
                            Approximation* approximation) {
    KvCache cache = model.make_cache(KvDType::f32);
    const int64_t sequence = cache.create();
    std::vector<float> all;
    std::vector<float> rows;
    int32_t next = 0;
    for (const size_t piece : pieces) {
      std::vector<int32_t> tokens(piece);
      for (int32_t& id : tokens) id = (next++ * 31) % 257;
      const Model::Step step{sequence, tokens};
      model.forward(context, cache, std::span(&step, 1), rows, approximation);
      all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
  }
};

std::string text_of(size_t size) {
  std::string text;
  while (text.size() < size) text += std::to_string(text.size()) + " sheep, ";
  return text.substr(0, size);
}

TEST(ForwardAttention, IsThatOfAModelWithTheSameMask) {
  Setting plain;
  Setting windowed(20);  // the same weights
  const Model model = plain.model();
  Approximation approximation = model.make_approximation(SlidingWindow{20}, KvDType::f32);
  const auto expected = windowed.hidden(windowed.model(), {150}, nullptr);
  EXPECT_EQ(plain.hidden(model, {150}, &approximation), expected);
  EXPECT_EQ(plain.hidden(model, {1, 70, 64, 15}, &approximation), expected);
  EXPECT_NE(plain.hidden(model, {150}, nullptr), expected);
}

TEST(ForwardAttention, AModelsOwnWindowCombinesWithMasksAlone) {
  Setting s(20);
  const Model model = s.model();
  for (const AttentionSpec& spec : {AttentionSpec(ExactAttention{}), AttentionSpec(BlockLocal{8}),
                                    AttentionSpec(SlidingWindow{30})}) {
    EXPECT_NO_THROW(model.make_approximation(spec, KvDType::f32)) << attention_text(spec);
  }
  for (const char* spec :
       {"clustered:4", "global-local:64,16", "topk:3", "topp:0.5", "lowrank:2", "dynamic:0.1"}) {
    test::expect_error(ErrorKind::usage, {"window of its own (20 tokens)", spec},
                       [&] { model.make_approximation(parse_attention(spec), KvDType::f32); });
  }
}

TEST(ForwardAttention, RefusesBeforeAnyTokenIsAppended) {
  Setting s(20);
  const Model model = s.model();
  KvCache cache = model.make_cache(KvDType::f32);
  Approximation other(TopPages{3}, cache.shape());
  const std::vector<int32_t> tokens{1, 2, 3};
  const Model::Step step{cache.create(), tokens};
  std::vector<float> hidden;
  test::expect_error(ErrorKind::usage, {"topk:3"},
                     [&] { model.forward(s.context, cache, std::span(&step, 1), hidden, &other); });
  EXPECT_EQ(cache.len(step.sequence), 0);
  EXPECT_EQ(cache.usage().pages, 0);
}

TEST(GenerateAttention, PagesBehindAMaskAreGivenUp) {
  Setting s;
  const Model model = s.model();
  const Tokenizer tokenizer = s.tokenizer();
  const Prompt prompt{text_of(100)};
  const auto peak_pages = [&](const AttentionSpec& spec) {
    const auto stats =
        generate_batch(s.context, model, tokenizer, std::span(&prompt, 1),
                       {.max_tokens = 800, .attention = spec}, 1, [](size_t, const Generated&) {});
    return stats.peak_kv_bytes / (2 * model.make_cache(KvDType::f32).shape().page_bytes(0));
  };
  EXPECT_EQ(peak_pages(ExactAttention{}), 15);  // 901 tokens, of which the last is never computed
  EXPECT_EQ(peak_pages(SlidingWindow{20}), 2);  // the prompt alone lies in 2
  EXPECT_EQ(peak_pages(BlockLocal{64}), 2);
  EXPECT_EQ(peak_pages(BlockLocal{192}), 3);
}

TEST(GenerateAttention, AWindowMakesTheTextOfAModelThatHasIt) {
  Setting plain;
  Setting windowed(20);
  const Tokenizer tokenizer = plain.tokenizer();
  const auto text = [&](Setting& s, const AttentionSpec& spec) {
    return generate(s.context, s.model(), tokenizer, text_of(90),
                    {.max_tokens = 90, .attention = spec})
        .tokens;
  };
  EXPECT_EQ(text(plain, SlidingWindow{20}), text(windowed, ExactAttention{}));
  EXPECT_NE(text(plain, SlidingWindow{20}), text(plain, ExactAttention{}));
}

class GenerateAttentionBatch : public testing::TestWithParam<const char*> {};

TEST_P(GenerateAttentionBatch, GivesWhatEachPromptGivesAlone) {
  Setting s;
  const Model model = s.model();
  const Tokenizer tokenizer = s.tokenizer();
  std::vector<Prompt> prompts;
  for (const size_t size : {500, 500, 450, 300, 100, 64, 63, 500, 20}) {
    prompts.push_back({text_of(size) + "!"});
  }
  const GenerateOptions options{.max_tokens = 60, .attention = parse_attention(GetParam())};
  std::vector<std::vector<int32_t>> alone;
  for (const Prompt& prompt : prompts) {
    alone.push_back(generate(s.context, model, tokenizer, prompt.text, options).tokens);
  }
  const bool shares = !std::holds_alternative<Clustered>(options.attention) &&
                      !std::holds_alternative<DynamicGroups>(options.attention);
  for (const int64_t batch : {2, 16}) {
    const auto stats = generate_batch(s.context, model, tokenizer, prompts, options, batch,
                                      [&](size_t i, const Generated& made) {
                                        EXPECT_EQ(made.tokens, alone[i]) << i << " of " << batch;
                                      });
    EXPECT_EQ(stats.shared_tokens > 500, shares);
    EXPECT_EQ(stats.shared_tokens == 0, !shares);
  }
}

INSTANTIATE_TEST_SUITE_P(, GenerateAttentionBatch,
                         testing::Values("block:64", "block:50", "window:33", "clustered:4",
                                         "clustered:4,2", "global-local:64,16", "topk:3",
                                         "topp:0.8", "lowrank:3", "lowrank:3,40", "dynamic:0.1"),
                         [](const auto& spec) {
                           std::string name = spec.param;
                           for (char& c : name) {
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace gqa
