#include "gqa/eval.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "gqa/error.h"
#include "io/json_value.h"
#include "support/naive_llama.h"
#include "support/temp_dir.h"

namespace gqa {
namespace {

using test::TinyLlama;

constexpr int64_t vocab = 257;  // of the byte tokenizer

struct Setting {
  test::TempDir dir;
  TinyLlama tiny;
  std::filesystem::path folder;
  Context context{{.threads = 2}};

  explicit Setting(const TinyLlama& model = {.kv_heads = 2, .vocab_size = vocab}) : tiny(model) {
    folder = test::write_tiny(dir / "model", tiny);
    test::put_file(folder / "tokenizer.json", test::byte_tokenizer());
  }
  void change_config(const std::string& key, const Json& value) const {
    Json config = read_json(folder / "config.json");
    config[key] = value;
    test::put_file(folder / "config.json", config.dump());
  }
  Tokenizer tokenizer() const { return Tokenizer::load(folder / "tokenizer.json"); }

  /// The protocol in the plainest words: the mean of -log p over the scored tokens.
  double nll(const std::vector<int32_t>& ids, size_t window, bool bos, int64_t* scored,
             const std::function<bool(size_t t, size_t s)>& hidden = {}) {
    double sum = 0;
    *scored = 0;
    for (size_t at = 0; at < ids.size(); at += window - 1) {
      std::vector<int32_t> tokens(
          ids.begin() + static_cast<int64_t>(at),
          ids.begin() + static_cast<int64_t>(std::min(ids.size(), at + window - 1)));
      if (bos) tokens.insert(tokens.begin(), 1);
      test::NaiveLlama naive(tiny, folder);
      naive.hidden = hidden;
      const auto logits = naive.logits(tokens);
      for (size_t t = 0; t + 1 < tokens.size(); ++t, ++*scored) {
        double normaliser = 0;
        for (const double x : logits[t]) normaliser += std::exp(x);
        sum += std::log(normaliser) - logits[t][static_cast<size_t>(tokens[t + 1])];
      }
    }
    return sum / static_cast<double>(*scored);
  }
};

const std::string kText =
    "Lily saw a b\xc3\xa4r and a red ball, and she ran to her mom as fast as she could.";

TEST(Evaluate, FollowsTheProtocol) {
  for (const bool bos : {true, false}) {
    Setting s;
    if (!bos) s.change_config("bos_token_id", nullptr);
    const Model model = Model::load(s.folder);
    const Tokenizer tokenizer = s.tokenizer();
    const auto ids = tokenizer.encode(kText);
    for (const int64_t window : {2, 7, 32}) {
      if (!bos && window == 2) continue;  // one token a window, unscored
      int64_t scored = 0;
      const double expected = s.nll(ids, static_cast<size_t>(window), bos, &scored);
      const auto got = evaluate(s.context, model, tokenizer, kText, {.context = window});
      EXPECT_NEAR(got.nll, expected, 1e-5) << window;
      EXPECT_EQ(got.tokens, scored);
      EXPECT_EQ(got.context, window);
      EXPECT_DOUBLE_EQ(got.ppl, std::exp(got.nll));
      EXPECT_NEAR(
          got.bits_per_byte,
          got.nll * static_cast<double>(scored) / std::log(2.0) / static_cast<double>(kText.size()),
          1e-9);
      EXPECT_FALSE(got.kl);
      EXPECT_FALSE(got.top1_agreement);
      EXPECT_FALSE(got.attention);
    }
    EXPECT_EQ(evaluate(s.context, model, tokenizer, kText).context, 32);  // the model's limit
  }
}

TEST(Evaluate, AgainstItselfNothingDiffersAndAgainstAnotherItDoes) {
  Setting s;
  const Model model = Model::load(s.folder);
  TinyLlama other_model = s.tiny;
  other_model.seed = 2;
  const Model other = Model::load(test::write_tiny(s.dir / "other", other_model));
  const auto self = evaluate(s.context, model, s.tokenizer(), kText, {}, &model);
  EXPECT_NEAR(*self.kl, 0.0, 1e-9);
  EXPECT_EQ(*self.top1_agreement, 1.0);
  const auto result = evaluate(s.context, model, s.tokenizer(), kText, {}, &other);
  EXPECT_EQ(result.nll, self.nll);
  EXPECT_GT(*result.kl, 0.1);
  EXPECT_LT(*result.top1_agreement, 0.9);
}

TEST(Evaluate, BlocksAndWindowsAreCountedFromBos) {
  for (const int64_t model_window : {0, 6}) {
    Setting s({.kv_heads = 2, .vocab_size = vocab, .window = model_window});
    const Model model = Model::load(s.folder);
    const auto ids = s.tokenizer().encode(kText);
    int64_t scored = 0;
    const double exact = s.nll(ids, 32, true, &scored);
    for (const size_t n : {1, 4, 5, 32}) {
      const auto size = static_cast<int64_t>(n);
      const double block =
          s.nll(ids, 32, true, &scored, [n](size_t t, size_t j) { return t / n != j / n; });
      const double window =
          s.nll(ids, 32, true, &scored, [n](size_t t, size_t j) { return t - j >= n; });
      EXPECT_EQ(std::abs(block - exact) > 1e-3, n < 6);
      EXPECT_EQ(std::abs(window - exact) > 1e-3, n < 6);
      const auto run = [&](const AttentionSpec& spec) {
        return evaluate(s.context, model, s.tokenizer(), kText, {.attention = spec});
      };
      const EvalResult local = run(BlockLocal{size});
      EXPECT_NEAR(local.nll, block, 1e-5) << n << " of " << model_window;
      EXPECT_TRUE(local.attention);
      EXPECT_NEAR(run(SlidingWindow{size}).nll, window, 1e-5) << n << " of " << model_window;
    }
  }
}

TEST(Evaluate, ComparesAttentionWithTheExactModel) {
  Setting s;
  const Model model = Model::load(s.folder);
  const auto run = [&](const AttentionSpec& spec) {
    return evaluate(s.context, model, s.tokenizer(), kText, {.attention = spec}, &model);
  };
  const EvalResult all = run(BlockLocal{32});  // as long as a window of text
  EXPECT_NEAR(*all.kl, 0.0, 1e-9);
  EXPECT_EQ(*all.top1_agreement, 1.0);
  const EvalResult local = run(BlockLocal{3});
  EXPECT_GT(*local.kl, 1e-3);
  EXPECT_LT(*local.top1_agreement, 1.0);
}

TEST(Evaluate, RefusesWhatItCanNotScore) {
  Setting s;
  const Model model = Model::load(s.folder);
  const auto kind = [&](const std::string& text, int64_t window) {
    try {
      evaluate(s.context, model, s.tokenizer(), text, {.context = window});
    } catch (const Error& e) {
      return e.kind();
    }
    return ErrorKind{};
  };
  EXPECT_EQ(kind(kText, 33), ErrorKind::usage);
  EXPECT_EQ(kind(kText, 1), ErrorKind::usage);
  EXPECT_EQ(kind("", 0), ErrorKind::bad_data);
  EXPECT_EQ(kind("a\xff", 0), ErrorKind::bad_data);
  const Model smaller = Model::load(test::write_tiny(s.dir / "smaller", {.vocab_size = 256}));
  EXPECT_THROW(evaluate(s.context, model, s.tokenizer(), kText, {}, &smaller), Error);
}

}  // namespace
}  // namespace gqa
