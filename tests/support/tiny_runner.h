// A tiny model with a tokenizer of bytes: what generation takes.
#pragma once

#include <filesystem>
#include <string>

#include "gqa/context.h"
#include "gqa/model.h"
#include "gqa/tokenizer.h"
#include "support/temp_dir.h"
#include "support/tiny_llama.h"

namespace gqa::test {

struct TinyRunner {
  TempDir dir;
  TinyLlama tiny;
  std::filesystem::path folder = write_tiny(dir / "model", tiny);
  Context context{{.threads = 1}};

  explicit TinyRunner(const TinyLlama& model = {.kv_heads = 2, .vocab_size = 257}) : tiny(model) {
    put_file(folder / "tokenizer.json", byte_tokenizer());
  }
  Model model() const { return Model::load(folder); }
  Tokenizer tokenizer() const { return Tokenizer::load(folder / "tokenizer.json"); }
  void change_config(const std::string& key, const Json& value) const {
    Json config = read_json(folder / "config.json");
    config[key] = value;
    put_file(folder / "config.json", config.dump());
  }
};

}  // namespace gqa::test
