// Generation with a model that has a sliding window.
#include <gtest/gtest.h>

#include "gqa/generate.h"
#include "support/tiny_runner.h"

namespace gqa {
namespace {

constexpr int64_t window = 20;

struct Setting : test::TinyRunner {
  Setting()
      : TinyRunner({.kv_heads = 2, .vocab_size = 257, .window = window, .max_positions = 1024}) {
    change_config("eos_token_id", nullptr);
  }
};

std::string text_of(size_t size) {
  std::string text;
  while (text.size() < size) text += std::to_string(text.size()) + " sheep, ";
  return text.substr(0, size);
}

TEST(GenerateWindow, ALongTextHoldsNoMoreThanItsWindow) {
  Setting s;
  const Model model = s.model();
  const Tokenizer tokenizer = s.tokenizer();
  const Prompt prompt{text_of(100)};
  const auto stats = generate_batch(s.context, model, tokenizer, std::span(&prompt, 1),
                                    {.max_tokens = 800}, 1, [](size_t, const Generated&) {});
  // The prompt's 101 tokens lie in 2 pages; a window never touches more.
  EXPECT_EQ(stats.peak_kv_bytes, 2 * model.make_cache(KvDType::f32).shape().page_bytes(0) * 2);
}

TEST(GenerateWindow, BatchesThatSharePrefixesGiveWhatEachPromptGivesAlone) {
  Setting s;
  const Model model = s.model();
  const Tokenizer tokenizer = s.tokenizer();
  // Prefixes that lie far behind the first prompt's window by the time they are wanted.
  std::vector<Prompt> prompts;
  for (const size_t size : {700, 700, 650, 300, 100, 64, 63, 700, 20}) {
    prompts.push_back({text_of(size) + "!"});
  }
  const GenerateOptions options{.max_tokens = 90};
  std::vector<std::vector<int32_t>> alone;
  for (const Prompt& prompt : prompts) {
    alone.push_back(generate(s.context, model, tokenizer, prompt.text, options).tokens);
  }
  for (const int64_t batch : {1, 2, 5, 16}) {
    size_t compared = 0;
    const auto stats = generate_batch(
        s.context, model, tokenizer, prompts, options, batch, [&](size_t i, const Generated& made) {
          EXPECT_EQ(made.tokens, alone[i]) << i << ", batch " << batch;
          ++compared;
        });
    EXPECT_EQ(compared, prompts.size());
    EXPECT_GT(stats.shared_tokens, 700);
  }
}

}  // namespace
}  // namespace gqa
