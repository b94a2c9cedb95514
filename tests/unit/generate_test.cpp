#include "gqa/generate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "gqa/error.h"
#include "support/naive_llama.h"
#include "support/tiny_runner.h"

namespace gqa {
namespace {

struct Setting : test::TinyRunner {
  /// Greedy continuation by the formulas in double precision.
  std::vector<int32_t> naive(std::vector<int32_t> ids, size_t n) const {
    std::vector<int32_t> made;
    while (made.size() < n) {
      const auto logits = test::NaiveLlama(tiny, folder).logits(ids).back();
      made.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      ids.push_back(made.back());
    }
    return made;
  }
};

TEST(Generate, ContinuesGreedilyAndTellsHowFarItIs) {
  const Setting s;
  const Model model = s.model();
  const Tokenizer tokenizer = s.tokenizer();
  Context context({.threads = 1});
  std::string heard;
  std::vector<std::string> steps;
  const auto result = generate(
      context, model, tokenizer, "Lily saw", {.max_tokens = 12},
      [&](std::string_view piece) {
        EXPECT_FALSE(steps.empty()) << "the prompt comes after it was read";
        heard += piece;
      },
      [&](std::string_view what, int64_t done, int64_t total) {
        steps.push_back(fmt::format("{} {}/{}", what, done, total));
      });
  std::vector<int32_t> prompt = {1};  // BOS
  for (const int32_t id : tokenizer.encode("Lily saw")) prompt.push_back(id);
  EXPECT_EQ(result.prompt_tokens, prompt);
  EXPECT_EQ(result.tokens, s.naive(prompt, 12));
  EXPECT_EQ(heard, result.text);
  std::vector<int32_t> all = prompt;
  all.insert(all.end(), result.tokens.begin(), result.tokens.end());
  EXPECT_EQ(result.text, tokenizer.decode(all));
  ASSERT_EQ(steps.size(), 13u);
  EXPECT_EQ(steps[0], "prefill 9/9");
  EXPECT_EQ(steps[12], "decode 12/12");
}

TEST(Generate, StopsAtAnyEndToken) {
  Setting s;
  const auto free_run = s.naive({1, 77}, 8);  // byte 0x4c, "L", is id 77
  // The third token ends it, as the second of two end tokens.
  s.change_config("eos_token_id", {256, free_run[2]});
  const auto result = generate(s.context, s.model(), s.tokenizer(), "L", {.max_tokens = 8});
  const auto first = std::find(free_run.begin(), free_run.end(), free_run[2]);
  EXPECT_EQ(result.tokens, std::vector<int32_t>(free_run.begin(), first));
}

TEST(Generate, FillsTheContextUnlessToldOtherwiseAndRefusesMore) {
  Setting s;
  s.change_config("eos_token_id", nullptr);
  const Model model = s.model();
  const auto made = [&](const std::string& prompt, std::optional<int64_t> n) {
    return generate(s.context, model, s.tokenizer(), prompt, {.max_tokens = n}).tokens.size();
  };
  EXPECT_EQ(made("abc", {}), 28u);  // of 32 positions, 4 are the prompt's
  EXPECT_EQ(made("abc", 28), 28u);
  EXPECT_EQ(made("abc", 1), 1u);
  const auto refused = [&](const std::string& prompt, std::optional<int64_t> n) {
    try {
      made(prompt, n);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(refused("abc", 29).find("context of 32"), std::string::npos);
  EXPECT_NE(refused(std::string(31, 'a'), {}).find("holds 32"), std::string::npos);
  EXPECT_NE(refused("", {}).find("empty"), std::string::npos);
  EXPECT_NE(refused("abc", 0).find("max tokens is 0"), std::string::npos);
}

TEST(Generate, ProgressThatThrowsStopsIt) {
  Setting s;
  const auto stop = [](std::string_view, int64_t, int64_t) {
    throw Error(ErrorKind::interrupted, "enough");
  };
  EXPECT_THROW(generate(s.context, s.model(), s.tokenizer(), "abc", {}, {}, stop), Error);
}

TEST(CheckVocabulary, RefusesATokenizerWithMoreIdsThanTheModel) {
  const Setting s;
  EXPECT_NO_THROW(check_vocabulary(s.model().config(), s.tokenizer(), s.folder));
  const Model smaller = Model::load(test::write_tiny(s.dir / "smaller", {.vocab_size = 256}));
  try {
    check_vocabulary(smaller.config(), s.tokenizer(), s.folder);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_data);
    EXPECT_NE(std::string(e.what()).find("tokenizer.json: ids up to 256"), std::string::npos);
  }
}

}  // namespace
}  // namespace gqa
