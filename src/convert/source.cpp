#include "convert/source.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/fail.h"
#include "gqa/generate.h"
#include "gqa/tokenizer.h"
#include "io/json_value.h"
#include "model/layout.h"

namespace gqa {
namespace {

namespace fs = std::filesystem;

/// Files beside config and weights that still hold after a conversion.
bool is_carried(const std::string& name) {
  static const std::set<std::string, std::less<>> exact = {"generation_config.json",
                                                           "tokenizer.json",
                                                           "tokenizer_config.json",
                                                           "special_tokens_map.json",
                                                           "added_tokens.json",
                                                           "vocab.json",
                                                           "merges.txt",
                                                           "tokenizer.model",
                                                           "chat_template.jinja"};
  const bool legal =
      name.starts_with("LICENSE") || name.starts_with("LICENCE") || name.starts_with("NOTICE");
  return legal || exact.contains(name);
}

std::vector<std::string> carried_files(const fs::path& dir) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator it(dir, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    std::error_code not_regular;
    const std::string name = it->path().filename().string();
    if (is_carried(name) && it->is_regular_file(not_regular)) names.push_back(name);
  }
  if (error) fail(ErrorKind::io, "{}: can't list: {}", dir.string(), error.message());
  std::sort(names.begin(), names.end());
  return names;
}

/// Fills tensors; checks that they are all that the checkpoint has.
void match_tensors(SourceModel& source) {
  std::set<std::string_view> expected;
  for (const ExpectedTensor& want : expected_tensors(source.config)) {
    const Tensor& tensor = source.checkpoint.at(want.name, want.shape);
    source.tensors.push_back(&tensor);
    expected.insert(tensor.name);
  }
  for (const Tensor* tensor : source.checkpoint.tensors()) {
    if (expected.contains(tensor->name)) continue;
    check_unused_tensor(source.config, source.checkpoint, *tensor);
    source.notes.push_back(fmt::format("tensor `{}` is left out: not needed", tensor->name));
  }
}

}  // namespace

SourceModel open_source(const fs::path& dir) {
  SourceModel source{.dir = dir,
                     .name = folder_name(dir),
                     .config = load_config(dir),
                     .config_json = std::make_shared<const Json>(read_json(dir / "config.json")),
                     .checkpoint = Checkpoint::open(dir),
                     .tensors = {},
                     .carried = carried_files(dir),
                     .notes = {}};
  match_tensors(source);
  return source;
}

void check_unused_tensor(const ModelConfig& config, const Checkpoint& checkpoint,
                         const Tensor& tensor) {
  if (tensor.name.ends_with("rotary_emb.inv_freq")) return;
  if (!config.tied_head || tensor.name != head_name) {
    fail(ErrorKind::bad_data, "{}: tensor `{}` is not part of a `{}` model with this config.json",
         tensor.file->string(), tensor.name, config.model_type);
  }
  const Tensor& embedding = checkpoint.at(embedding_name);
  const bool same = embedding.dtype_name == tensor.dtype_name && embedding.shape == tensor.shape &&
                    std::memcmp(embedding.data, tensor.data, tensor.bytes) == 0;
  if (!same) {
    fail(ErrorKind::bad_data,
         "{}: tensor `{}` differs from `{}`, but config.json has tie_word_embeddings true",
         tensor.file->string(), tensor.name, embedding_name);
  }
}

bool check_tokenizer(const ModelConfig& config, const fs::path& dir) {
  const fs::path file = dir / "tokenizer.json";
  std::error_code error;
  if (!fs::exists(file, error) && !error) return false;
  check_vocabulary(config, Tokenizer::load(file), dir);
  return true;
}

DType default_kv_dtype(const Checkpoint& checkpoint) {
  return *attention_tensors(checkpoint, 0).k->dtype;
}

int64_t kv_bytes_per_token(const ModelConfig& config, DType kv_dtype) {
  int64_t bytes = 0;
  for (const int64_t heads : config.kv_heads) {
    bytes += 2 * heads * config.head_dim * dtype_bytes(kv_dtype);
  }
  return bytes;
}

std::string folder_name(const fs::path& dir) {
  const fs::path whole = fs::absolute(dir).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

}  // namespace gqa
