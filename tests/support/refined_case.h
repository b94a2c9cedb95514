// A tiny model and a text, for conversions that refine.
#pragma once

#include <gtest/gtest.h>

#include "gqa/convert.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa::test {

class RefinedCase : public testing::Test {
 protected:
  static constexpr int64_t layers = 3;

  RefinedCase() {
    write_mixed(dir_ / "in", {.n_layers = layers, .vocab_size = 257, .attention_bias = true});
    put_file(dir_ / "in/tokenizer.json", byte_tokenizer());
    put_file(dir_ / "text.txt", "The quick brown fox jumps over a lazy dog, and the dog wakes up.");
    options_.kv_heads = 2;
    options_.grouping = "neighbour";
    options_.output.threads = 1;
    options_.calibration = Calibration{.text = dir_ / "text.txt",
                                       .tokens = 1000,  // all of it
                                       .sampled_tokens = 0,
                                       .window = 16,
                                       .steps = 3};
  }

  const TempDir dir_;
  ConvertOptions options_;

 private:
  /// Biases in f32 beside bf16 weights: each is rounded as it is stored.
  static void write_mixed(const std::filesystem::path& dir, TinyLlama tiny) {
    tiny.shards = 2;
    tiny.dtype = DType::bf16;
    write_tiny(dir, tiny);
    auto tensors = tiny_tensors(tiny);
    tiny.dtype = DType::f32;
    const auto exact = tiny_tensors(tiny);
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name.ends_with(".bias")) tensors[i] = exact[i];
    }
    write_shards(dir, tensors, tiny.shards);
  }
};

}  // namespace gqa::test
