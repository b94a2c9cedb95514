// Batches against the same prompts one by one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "gqa/generate.h"
#include "support/expect_error.h"
#include "support/tiny_runner.h"

namespace gqa {
namespace {

using test::expect_error;

constexpr int64_t context_size = 1024;

struct Setting : test::TinyRunner {
  Setting() { change_config("max_position_embeddings", context_size); }
};

std::vector<Prompt> as_prompts(const std::vector<std::string>& texts) {
  std::vector<Prompt> prompts;
  for (const auto& text : texts) prompts.push_back({text});
  return prompts;
}

/// Of many lengths: doubles, beginnings of others, a long common beginning, one that takes two
/// forward passes to read.
std::vector<Prompt> mixed_prompts() {
  const std::string story =
      "Once upon a time there was a fox who lived in a small house by the river, and every day it "
      "went out to look for berries. One day";
  std::string song;
  while (song.size() < 700) song += fmt::format("{} green bottles, ", song.size());
  return as_prompts({"a", story + " it saw", song, story, "Lily", story + " it sang", "Lily",
                     "Lily and", story + " it saw a bear", song + "one", "x", story + " it saw",
                     story.substr(0, 64), "Tom", song.substr(0, 600) + "!", story.substr(0, 65),
                     "Once upon"});
}

struct Made {
  std::vector<Generated> results;
  BatchStats stats;
};

Made make(Context& context, const Model& model, const Tokenizer& tokenizer,
          std::span<const Prompt> prompts, const GenerateOptions& options, int64_t batch) {
  Made made;
  made.stats = generate_batch(context, model, tokenizer, prompts, options, batch,
                              [&](size_t index, const Generated& result) {
                                EXPECT_EQ(index, made.results.size());
                                made.results.push_back(result);
                              });
  EXPECT_EQ(made.results.size(), prompts.size());
  return made;
}

struct Case {
  const char* name;
  KvDType kv_dtype;
  SamplingOptions sampling;
};

class GenerateBatch : public testing::TestWithParam<Case> {};

TEST_P(GenerateBatch, GivesWhatEachPromptGivesAlone) {
  const Case& c = GetParam();
  const GenerateOptions options{.max_tokens = 70, .sampling = c.sampling, .kv_dtype = c.kv_dtype};
  Setting s;
  const Tokenizer tokenizer = s.tokenizer();
  const auto prompts = mixed_prompts();
  // End tokens that occur, so that prompts end at different times: of every seventh text the
  // 3rd, 10th, 17th, ... token.
  s.change_config("eos_token_id", nullptr);
  std::vector<int32_t> ends;
  for (size_t i = 0; i < prompts.size(); i += 7) {
    const auto made = generate(s.context, s.model(), tokenizer, prompts[i].text, options).tokens;
    for (size_t t = 2 + i; t < made.size(); t += 30) ends.push_back(made[t]);
  }
  s.change_config("eos_token_id", ends);
  const Model model = s.model();

  std::vector<Generated> alone;
  std::vector<size_t> lengths;
  for (const Prompt& prompt : prompts) {
    alone.push_back(generate(s.context, model, tokenizer, prompt.text, options));
    lengths.push_back(alone.back().tokens.size());
  }
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  ASSERT_GE(lengths.size(), 3u) << "they should end at different times";

  Context threads({.threads = 3});
  for (const int64_t batch : {1, 2, 3, 7, 16, 1000}) {
    const auto made =
        make(batch == 7 ? threads : s.context, model, tokenizer, prompts, options, batch);
    int64_t prompt_tokens = 0;
    int64_t new_tokens = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_EQ(made.results[i].tokens, alone[i].tokens) << prompts[i].text << ", batch " << batch;
      EXPECT_EQ(made.results[i].text, alone[i].text);
      EXPECT_EQ(made.results[i].prompt_tokens, alone[i].prompt_tokens);
      prompt_tokens += std::ssize(alone[i].prompt_tokens);
      new_tokens += std::ssize(alone[i].tokens);
    }
    EXPECT_EQ(made.stats.prompt_tokens, prompt_tokens);
    EXPECT_EQ(made.stats.new_tokens, new_tokens);
    EXPECT_GT(made.stats.shared_tokens, batch < 7 ? 0 : 1000);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, GenerateBatch,
    testing::Values(Case{"greedy_f32", KvDType::f32, {}}, Case{"greedy_bf16", KvDType::bf16, {}},
                    Case{"greedy_int8", KvDType::int8, {}}, Case{"greedy_int4", KvDType::int4, {}},
                    Case{"sampled_f32", KvDType::f32, {.temperature = 1.1f, .seed = 5}},
                    Case{"sampled_f16",
                         KvDType::f16,
                         {.temperature = 0.8f,
                          .top_k = 50,
                          .top_p = 0.9f,
                          .repetition_penalty = 1.2f,
                          .seed = 6}}),
    [](const auto& c) { return std::string(c.param.name); });

/// A prompt of so many tokens, BOS included, that ends in `tail`.
std::string prompt_of(size_t tokens, const std::string& tail) {
  std::string text;
  while (text.size() < tokens) text += "the quick brown fox jumps over the lazy dog; ";
  return text.substr(0, tokens - 1 - tail.size()) + tail;
}

/// 2 layers, keys and values of 2 heads of 6 floats.
constexpr int64_t page = KvCache::page_size;
constexpr int64_t page_bytes = 2 * page * 2 * 2 * 6 * 4;

TEST(GenerateBatch, ALongBeginningIsComputedAndStoredOnce) {
  Setting s;
  s.change_config("eos_token_id", nullptr);
  const Model model = s.model();
  // 5 pages and 20 tokens, then 4 of each prompt's own.
  const int64_t common = 5 * page + 20;
  std::vector<std::string> texts;
  for (int i = 0; i < 16; ++i)
    texts.push_back(prompt_of(common + 4, fmt::format("{:c}xyz", 'A' + i)));
  const auto prompts = as_prompts(texts);
  const auto stats = make(s.context, model, s.tokenizer(), prompts, {.max_tokens = page}, 16).stats;
  EXPECT_EQ(stats.prompt_tokens, 16 * (common + 4));
  EXPECT_EQ(stats.shared_tokens, 15 * common);
  EXPECT_EQ(stats.new_tokens, 16 * page);
  // The common pages once; of each prompt's own, one that begins with a copy and one more.
  EXPECT_EQ(stats.peak_kv_bytes, (5 + 16 * 2) * page_bytes);
}

TEST(GenerateBatch, NoMoreThanTheBatchDecodeAtATime) {
  Setting s;
  s.change_config("eos_token_id", nullptr);
  const Model model = s.model();
  const auto prompts = as_prompts({"ab", "cd", "ef", "gh", "ij", "kl", "mn"});
  for (const int64_t batch : {1, 3, 7, 8}) {
    const auto peak = [&](KvDType dtype) {
      const GenerateOptions options{.max_tokens = 5, .kv_dtype = dtype};
      return make(s.context, model, s.tokenizer(), prompts, options, batch).stats.peak_kv_bytes;
    };
    EXPECT_EQ(peak(KvDType::f32), std::min<int64_t>(batch, 7) * page_bytes);
    EXPECT_EQ(peak(KvDType::bf16), std::min<int64_t>(batch, 7) * page_bytes / 2);
    // A vector of 6 elements takes 24 bytes of f32; 6 + 4 with the scale, or 3 + 4.
    EXPECT_EQ(peak(KvDType::int8), std::min<int64_t>(batch, 7) * page_bytes * (8 + 4) / 24);
    EXPECT_EQ(peak(KvDType::int4), std::min<int64_t>(batch, 7) * page_bytes * (4 + 4) / 24);
  }
}

TEST(GenerateBatch, AnEndedPromptKeepsOnlyWhatIsNeededAndOnlySoLong) {
  Setting s;
  s.change_config("eos_token_id", nullptr);
  const Model model = s.model();
  const auto peak_pages = [&](const std::vector<std::string>& texts, std::optional<int64_t> n) {
    const auto prompts = as_prompts(texts);
    const auto made = make(s.context, model, s.tokenizer(), prompts, {.max_tokens = n}, 2);
    return made.stats.peak_kv_bytes / page_bytes;
  };
  // 8 pages each: one such prompt is all that a forward pass reads, and each ends with it.
  const std::string first = prompt_of(512, "");
  const std::string other(511, 'z');
  const std::string third(511, 'y');
  // A page and a bit of the first, and 4 tokens.
  const std::string branch = first.substr(0, 79) + "????";
  EXPECT_EQ(peak_pages({first}, 1), 8);
  EXPECT_EQ(peak_pages({first, other}, 1), 8);
  EXPECT_EQ(peak_pages({first, other, branch}, 1), 8 + 2);
  // The branch is read in one pass with most of the third. Its second page is its own by now.
  EXPECT_EQ(peak_pages({first, other, branch, third}, 1), 8 + 2);

  // Two that fill the context go by while one decodes: meanwhile the branch can't join.
  const std::string full = prompt_of(context_size - 1, "");
  const std::string other_full(context_size - 2, 'z');
  EXPECT_EQ(peak_pages({"ab", full, other_full}, {}), 1 + 16);
  EXPECT_EQ(peak_pages({"ab", full, other_full, branch}, {}), 1 + 16 + 2);
}

TEST(GenerateBatch, ResultsComeInOrderAsSoonAsTheyCan) {
  Setting s;
  s.change_config("eos_token_id", nullptr);
  const Model model = s.model();
  const Tokenizer tokenizer = s.tokenizer();
  // The second has room for 5 tokens.
  const std::vector<Prompt> prompts = as_prompts({"ab", std::string(context_size - 6, 'q'), "cd"});
  std::vector<std::string> events;
  int64_t last_done = 0;
  int64_t last_total = 0;
  generate_batch(
      s.context, model, tokenizer, prompts, {}, 2,
      [&](size_t index, const Generated& result) {
        events.push_back(fmt::format("{}: {}", index, result.tokens.size()));
      },
      [&](std::string_view what, int64_t done, int64_t total) {
        EXPECT_EQ(what, "generate");
        EXPECT_GT(done, last_done);
        EXPECT_TRUE(last_total == 0 || total == last_total);
        last_done = done;
        last_total = total;
        if (events.empty() || events.back() != "...") events.push_back("...");
      });
  EXPECT_EQ(events, (std::vector<std::string>{"...", "0: 256", "1: 5", "...", "2: 256", "..."}));
  EXPECT_EQ(last_total, 3 + 256 + context_size + 3 + 256);
  EXPECT_EQ(last_done, last_total);
}

TEST(GenerateBatch, ProgressEndsAtTheTotalThoughPromptsEndEarly) {
  Setting s;
  s.change_config("eos_token_id", nullptr);
  const auto tokenizer = s.tokenizer();
  const auto run = generate(s.context, s.model(), tokenizer, "Lily", {.max_tokens = 9}).tokens;
  s.change_config("eos_token_id", run[4]);
  int64_t last_done = 0;
  int64_t last_total = 0;
  const auto stats = generate_batch(
      s.context, s.model(), tokenizer, as_prompts({"Lily", "Tom", "Lily"}), {.max_tokens = 9}, 2,
      [](size_t, const Generated&) {},
      [&](std::string_view, int64_t done, int64_t total) {
        last_done = done;
        last_total = total;
      });
  EXPECT_LT(stats.new_tokens, 27);
  EXPECT_EQ(last_total, 5 + 4 + 5 + 27);
  EXPECT_EQ(last_done, last_total);
}

TEST(GenerateBatch, WhatTheSinkThrowsStopsIt) {
  Setting s;
  const Model model = s.model();
  size_t heard = 0;
  const auto stop = [&](size_t index, const Generated&) {
    ++heard;
    if (index == 1) throw Error(ErrorKind::interrupted, "enough");
  };
  expect_error(ErrorKind::interrupted, {"enough"}, [&] {
    generate_batch(s.context, model, s.tokenizer(), mixed_prompts(), {.max_tokens = 3}, 4, stop);
  });
  EXPECT_EQ(heard, 2u);
}

TEST(GenerateBatch, WrongPromptsAreNamedBeforeAnyWork) {
  Setting s;
  const Model model = s.model();
  const auto refuse = [&](ErrorKind kind, std::initializer_list<std::string_view> words,
                          std::vector<Prompt> prompts, GenerateOptions options = {},
                          int64_t batch = 2) {
    expect_error(kind, words, [&] {
      generate_batch(
          s.context, model, s.tokenizer(), prompts, options, batch,
          [](size_t, const Generated&) { ADD_FAILURE() << "it worked"; },
          [](std::string_view, int64_t, int64_t) { ADD_FAILURE() << "it worked"; });
    });
  };
  refuse(ErrorKind::usage, {"prompt 2: the prompt is empty"}, {{"a"}, {""}});
  refuse(ErrorKind::usage, {"p.txt:7: the prompt has 1201 tokens", "1024"},
         {{"a"}, {std::string(1200, 'a'), "p.txt:7"}});
  refuse(ErrorKind::usage, {"prompt 1: 2 prompt tokens", "1023"}, {{"a"}, {"b"}},
         {.max_tokens = 1023});
  refuse(ErrorKind::bad_data, {"prompt 3: ", "UTF-8"}, {{"a"}, {"b"}, {"\xff"}});
  refuse(ErrorKind::usage, {"batch is 0"}, {{"a"}}, {}, 0);
  refuse(ErrorKind::usage, {"temperature"}, {{"a"}},
         {.max_tokens = 1, .sampling = {.temperature = -1}});
}

TEST(GenerateBatch, NoPromptsAreNoWork) {
  Setting s;
  const auto stats = make(s.context, s.model(), s.tokenizer(), {}, {}, 8).stats;
  EXPECT_EQ(stats.new_tokens, 0);
  EXPECT_EQ(stats.peak_kv_bytes, 0);
}

}  // namespace
}  // namespace gqa
