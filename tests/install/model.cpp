// A program of somebody else that uses all of the library: it looks at a model, tokenises,
// generates.
#include <gqa/error.h>
#include <gqa/generate.h>
#include <gqa/inspect.h>
#include <gqa/model.h>
#include <gqa/tokenizer.h>

#include <cstdio>
#include <filesystem>
#include <string>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::filesystem::path folder = argv[1];
  const gqa::Inspection found = gqa::inspect(folder);
  std::printf("%zu layers, %lld query heads, %lld bytes a token\n", found.config.kv_heads.size(),
              static_cast<long long>(found.config.q_heads),
              static_cast<long long>(found.kv_bytes_per_token));

  const gqa::Tokenizer tokenizer = gqa::Tokenizer::load(folder / "tokenizer.json");
  std::printf("%s\n", tokenizer.decode(tokenizer.encode("There and back again.")).c_str());

  // The Context is libgqa-attention's, the model's dense products on its threads are libgqa's.
  gqa::Context context({.threads = 2});
  const gqa::Model model = gqa::Model::load(folder);
  const gqa::Generated text =
      gqa::generate(context, model, tokenizer, "Once upon a time", {.max_tokens = 8});
  std::printf("%s\n", text.text.c_str());

  try {
    gqa::load_config(folder / "nowhere");
  } catch (const gqa::Error& error) {
    std::printf("exit code %d\n", error.exit_code());
  }
}
