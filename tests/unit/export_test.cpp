// The folders that convert() and expand() write, and when they write none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "convert/card.h"
#include "gqa/convert.h"
#include "io/json_value.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa {
namespace {

using test::expect_error;
using test::folder_content;
using test::get_file;
using test::load_tensors;
using test::put_file;
using test::raw_tensor;
using test::TempDir;
using test::TinyLlama;
using test::write_tiny;
using testing::HasSubstr;

ConvertOptions to_heads(int64_t kv_heads, std::string grouping = "neighbour") {
  ConvertOptions options{.grouping = "neighbour", .merge = "mean"};
  options.kv_heads = kv_heads;
  options.grouping = std::move(grouping);
  return options;
}

TEST(Export, ConfigChangesWhereItMustAlone) {
  const TempDir dir;
  write_tiny(dir / "in", {.extra = {{"made_up", {1.5, nullptr}}, {"torch_dtype", "float32"}}});
  const std::string before = get_file(dir / "in" / "config.json");
  convert(dir / "in", dir / "out", to_heads(8));
  EXPECT_EQ(get_file(dir / "out" / "config.json"), before + "\n");
  ConvertOptions options = to_heads(2);
  options.output.dtype = DType::bf16;
  convert(dir / "in", dir / "two", options);
  Json want = Json::parse(before);
  want["num_key_value_heads"] = 2;
  want["torch_dtype"] = "bfloat16";
  EXPECT_EQ(get_file(dir / "two" / "config.json"), want.dump(2) + "\n");
  EXPECT_EQ(load_config(dir / "two").kv_heads,
            plan_convert(dir / "in", options).plan().result.kv_heads);
}

TEST(Export, ConfigSaysWhatItLeftOpen) {
  const TempDir dir;
  TinyLlama m{.width = 24, .q_heads = 4, .kv_heads = 4, .extra = {{"dtype", "float32"}}};
  write_tiny(dir / "in", m);
  Json config = tiny_config(m);
  config.erase("head_dim");
  config.erase("num_key_value_heads");
  put_file(dir / "in" / "config.json", config.dump());
  ConvertOptions options = to_heads(1);
  options.output.dtype = DType::f16;
  convert(dir / "in", dir / "out", options);
  const Json out = Json::parse(get_file(dir / "out" / "config.json"));
  EXPECT_EQ(out["head_dim"], 6);
  EXPECT_EQ(out["num_key_value_heads"], 1);
  EXPECT_EQ(out["dtype"], "float16");
  EXPECT_FALSE(out.contains("torch_dtype"));
}

TEST(Export, FilesBesideAreCarried) {
  const TempDir dir;
  write_tiny(dir / "in", {.vocab_size = 257});
  const std::map<std::string, std::string> carried = {{"tokenizer.json", test::byte_tokenizer()},
                                                      {"tokenizer_config.json", "{}"},
                                                      {"special_tokens_map.json", "{ }"},
                                                      {"generation_config.json", "{\"top_k\": 1}"},
                                                      {"chat_template.jinja", "{{ x }}"},
                                                      {"tokenizer.model", std::string("\0\1", 2)},
                                                      {"LICENSE.txt", "Free."},
                                                      {"NOTICE", "By us."}};
  for (const auto& [name, content] : carried) put_file(dir / "in" / name, content);
  put_file(dir / "in" / "pytorch_model.bin", "old");
  put_file(dir / "in" / "README.md", "---\nlicense: mit\ntags:\n- x\n---\nText");
  convert(dir / "in", dir / "out", to_heads(4));
  auto content = folder_content(dir / "out");
  for (const auto& [name, text] : carried) EXPECT_EQ(content[name], text) << name;
  EXPECT_EQ(content.size(), carried.size() + 4);  // weights, config, recipe, card
  EXPECT_THAT(content["README.md"], HasSubstr("license: mit\n"));
  EXPECT_THAT(content["README.md"], HasSubstr("base_model: \"in\"\n"));
  EXPECT_THAT(content["README.md"], HasSubstr("AutoTokenizer"));
  EXPECT_THAT(content["README.md"],
              HasSubstr("gqa convert in OUT --kv-heads 4 --grouping neighbour --merge mean"));
  EXPECT_THAT(content["README.md"], HasSubstr("| KV bytes per token | 768 | 384 |"));
  EXPECT_TRUE(plan_convert(dir / "in", to_heads(4)).plan().notes.empty());
}

TEST(Export, LicenceLines) {
  const TempDir dir;
  const auto lines = [&](const std::string& text) {
    put_file(dir / "README.md", text);
    return license_lines(dir / "README.md");
  };
  EXPECT_EQ(lines("---\r\nlicense: other\r\nlicense_name: x\r\nfoo: y\r\n---\r\n"),
            "license: other\nlicense_name: x\n");
  EXPECT_EQ(lines("---\nlicense:\n- mit\n- x\ntags:\n- y\n---\n"), "license:\n- mit\n- x\n");
  EXPECT_EQ(lines("---\nlicense: mit\n"), "");
  EXPECT_EQ(lines("license: mit\n"), "");
  EXPECT_EQ(lines("---\nnot: it\n---\nlicense: mit\n"), "");
  EXPECT_EQ(lines("\xff\xfe"), "");
  EXPECT_EQ(lines(""), "");
  EXPECT_EQ(license_lines(dir / "none.md"), "");
}

TEST(Export, ShardsHoldTheSame) {
  const TempDir dir;
  write_tiny(dir / "in", {.kv_heads = 4});
  ExportOptions options;
  expand(dir / "in", dir / "one", options);
  options.max_shard_bytes = 4000;
  expand(dir / "in", dir / "many", options);
  EXPECT_TRUE(std::filesystem::exists(dir / "many" / "model.safetensors.index.json"));
  EXPECT_EQ(load_tensors(dir / "one"), load_tensors(dir / "many"));
  options.max_shard_bytes = 0;
  expect_error(ErrorKind::usage, {"max_shard_bytes", "0"},
               [&] { expand(dir / "in", dir / "none", options); });
}

TEST(Export, ThePlanKnowsTheSize) {
  const TempDir dir;
  write_tiny(dir / "in", {.attention_bias = true, .dtype = DType::f16});
  for (const auto dtype : {std::optional<DType>(), std::optional(DType::f32)}) {
    ConvertOptions options = to_heads(2);
    options.output = {.dtype = dtype, .force = true};
    const ConvertPlan plan = plan_convert(dir / "in", options).plan();
    convert(dir / "in", dir / "out", options);
    int64_t bytes = 0;
    for (const auto& [name, tensor] : load_tensors(dir / "out")) bytes += std::ssize(tensor.bytes);
    EXPECT_EQ(plan.output_bytes, bytes);
    EXPECT_EQ(plan.source_kv_bytes_per_token, 2 * 8 * 6 * 2 * 2);
    EXPECT_EQ(plan.result_kv_bytes_per_token, 2 * 2 * 6 * 2 * (dtype ? 4 : 2));
    EXPECT_GE(plan.peak_memory_bytes, 2 * 2 * 6 * 10 * 8);
    EXPECT_THAT(plan.notes, testing::ElementsAre(HasSubstr("no tokenizer.json")));
  }
}

TEST(Export, ProgressRunsToTheEnd) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  std::map<std::string, int64_t> last, total;
  const Progress progress = [&](std::string_view what, int64_t done, int64_t of) {
    const std::string key(what);
    EXPECT_GE(done, last[key]);
    last[key] = done;
    total[key] = of;
  };
  convert(dir / "in", dir / "out", to_heads(2), progress);
  EXPECT_EQ(last["convert"], plan_convert(dir / "in", to_heads(2)).plan().output_bytes);
  EXPECT_EQ(last, total);
}

TEST(Export, StoppingLeavesNothing) {
  const TempDir dir;
  write_tiny(dir / "in", {});
  for (const char* when : {"expand", "hash"}) {
    const Progress stop = [&](std::string_view what, int64_t done, int64_t) {
      if (what == when && done > 0) throw Error(ErrorKind::interrupted, "stopped");
    };
    expect_error(ErrorKind::interrupted, {"stopped"},
                 [&] { expand(dir / "in", dir / "out", {}, stop); });
    EXPECT_EQ(folder_content(dir.path()).size(), 1u);
  }
}

TEST(Export, WhatConfigGivesIsLeftOut) {
  const TempDir dir;
  TinyLlama m;
  const auto embedding = test::tiny_tensors(m)[0];
  m.others = {raw_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", {3}, {1, 2, 3}),
              {"lm_head.weight", embedding.dtype, embedding.shape, embedding.data}};
  write_tiny(dir / "in", m);
  EXPECT_EQ(plan_convert(dir / "in", to_heads(8)).plan().notes.size(), 3u);
  convert(dir / "in", dir / "out", to_heads(8));
  write_tiny(dir / "plain", {});
  EXPECT_EQ(load_tensors(dir / "out"), load_tensors(dir / "plain"));
}

}  // namespace
}  // namespace gqa
