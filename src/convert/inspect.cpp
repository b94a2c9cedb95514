#include "gqa/inspect.h"

#include <algorithm>

#include "convert/aligned.h"
#include "convert/similarity.h"
#include "convert/source.h"

namespace gqa {

Inspection inspect(const std::filesystem::path& dir, const InspectOptions& options,
                   const Progress& progress) {
  const SourceModel source = open_source(dir);
  Inspection result;
  result.config = source.config;
  for (const Tensor* tensor : source.tensors) {
    const std::string name(dtype_name(*tensor->dtype));
    if (std::ranges::find(result.dtypes, name) == result.dtypes.end()) {
      result.dtypes.push_back(name);
    }
    result.parameters += tensor->elements;
    result.weight_bytes += tensor->bytes;
  }
  result.kv_bytes_per_token =
      kv_bytes_per_token(source.config, default_kv_dtype(source.checkpoint));
  const int64_t n_layers = source.config.n_layers;
  for (int64_t l = 0; l < n_layers; ++l) {
    if (progress) progress("inspect", l, n_layers);
    const AttentionTensors a = attention_tensors(source.checkpoint, l);
    result.k_similarity.push_back(head_similarity(*a.k, source.config.kv_heads[l]));
    result.v_similarity.push_back(head_similarity(*a.v, source.config.kv_heads[l]));
    if (!options.similarity) continue;
    result.aligned.push_back(study_similarity(source.config, source.checkpoint, l, [&] {
      if (progress) progress("inspect", l, n_layers);
    }));
  }
  if (progress) progress("inspect", n_layers, n_layers);
  return result;
}

}  // namespace gqa
